element.addEventListener('click', event => {
  const button = event.target.closest('.switch button');
  if (!button) return;
  element.querySelector('.clues').dataset.ring = button.dataset.ring;
  element.querySelectorAll('.switch button').forEach(b => b.setAttribute('aria-pressed', b === button));
});
const outline = event => {
  element.querySelectorAll('.window').forEach(w => w.style.opacity = 0);
  const cell = event.target.closest('button.cell');
  const frame = cell && cell.closest('.ring').querySelector('.window');
  if (!frame) return;
  const d = cell.dataset;
  frame.style.cssText = `opacity:1;left:${d.left}%;top:${d.top}%;width:${d.width}%;height:${d.height}%`;
};
element.addEventListener('mouseover', outline);
element.addEventListener('focusin', outline);
element.addEventListener('mouseleave', () => element.querySelectorAll('.window').forEach(w => w.style.opacity = 0));
