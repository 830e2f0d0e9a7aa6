// the cell that is told of, by the pointer or by the arrow keys
let at = 0;
const cells = () => [...element.querySelectorAll('.grid i')];
const tell = index => {
  at = index;
  cells().forEach((cell, i) => cell.classList.toggle('at', i === at));
  element.querySelector('.cell-title').textContent = cells()[at].dataset.title;
};
element.addEventListener('mouseover', event => {
  const index = cells().indexOf(event.target);
  if (index >= 0) tell(index);
});
element.addEventListener('focusin', event => { if (event.target.matches('.grid')) tell(at); });
element.addEventListener('keydown', event => {
  const grid = event.target.closest('.grid');
  if (!grid) return;
  const count = +grid.dataset.count, row = Math.floor(at / count), column = at % count;
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
  if (!down && !right) return;
  event.preventDefault();  // the page would scroll
  const within = value => Math.max(0, Math.min(count - 1, value));
  tell(within(row + down) * count + within(column + right));
});
