// the visitor's choices, kept when Gradio draws the part again
let ring = '0', covered = false;
const shown = () => element.querySelector('.shown');
const press = (button, pressed) => button?.setAttribute('aria-pressed', pressed);
const apply = () => {
  if (!element.querySelector(`.rings [data-ring="${ring}"]`)) ring = '0';
  element.querySelector('.clues').dataset.ring = ring;
  element.querySelectorAll('.rings button').forEach(b => press(b, b.dataset.ring === ring));
  const view = covered && props.value?.covered;
  shown()?.classList.toggle('covered', Boolean(view));
  press(element.querySelector('[data-view=attention]'), !view);
  press(element.querySelector('[data-view=covered]'), Boolean(view));
};
watch('value', apply);
element.addEventListener('click', event => {
  ring = event.target.closest('.rings button')?.dataset.ring ?? ring;
  const view = event.target.closest('.views button')?.dataset.view;
  if (view) covered = view === 'covered';
  // the covered faces are read only when somebody asks, and once
  if (view === 'covered' && !props.value.covered) trigger('select', { index: 0, value: 'covered' });
  apply();
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
