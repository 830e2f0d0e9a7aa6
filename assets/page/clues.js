const press = (group, button) => element.querySelectorAll(`${group} button`).forEach(b => b.setAttribute('aria-pressed', b === button));
element.addEventListener('click', event => {
  const ring = event.target.closest('.rings button');
  if (ring) {
    element.querySelector('.clues').dataset.ring = ring.dataset.ring;
    press('.rings', ring);
  }
  const view = event.target.closest('.views button');
  if (!view) return;
  press('.views', view);
  const covered = view.dataset.view === 'covered';
  // the covered faces are read only when somebody asks, and once
  if (covered && !props.value.covered) trigger('select', { index: 0, value: 'covered' });
  else element.querySelector('.shown').classList.toggle('covered', covered);
});
const outline = event => {
  element.querySelectorAll('.window').forEach(w => w.style.opacity = 0);
  const cell = event.target.closest('button.cell');
  const frame = cell && cell.closest('.ring').querySelector('.window');
  if (!frame) return;
  const d = cell.dataset;
  frame.style.cssText = `opacity:1;left:${d.left}%;top:${d.top}%;width:${d.width}%;height:${d.height}%`;
  if (props.value.covered) element.querySelector('.detail').textContent = d.detail;
};
element.addEventListener('mouseover', outline);
element.addEventListener('focusin', outline);
element.addEventListener('mouseleave', () => element.querySelectorAll('.window').forEach(w => w.style.opacity = 0));
