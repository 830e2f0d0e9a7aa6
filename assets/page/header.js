element.addEventListener('click', event => {
  if (event.target.closest('.theme')) document.body.classList.toggle('dark');
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  const column = document.querySelector(link.getAttribute('href'));
  // on a phone the columns have no box of their own, their parts have
  const target = [column, ...column.children].find(e => e.getClientRects().length);
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  target?.scrollIntoView({ behavior: calm ? 'auto' : 'smooth' });
});
// the model's English is marked as such
document.querySelector('#chat')?.setAttribute('lang', 'en');
// every AU in the chat, in a chain or on a bar lights the others of its number
const UNIT = /^AU\d+$/;
const unitOf = target => {
  const source = target.closest?.('#chat code, [data-au]');
  const unit = source && (source.dataset.au || source.textContent.trim());
  return UNIT.test(unit) ? unit : null;
};
const light = event => {
  const unit = unitOf(event.target);
  document.querySelectorAll('[data-au].lit').forEach(e => e.classList.remove('lit'));
  if (unit) document.querySelectorAll(`[data-au="${unit}"]`).forEach(e => e.classList.add('lit'));
};
const follow = event => {
  if (event.type === 'keydown' && event.key !== 'Enter') return;
  const unit = event.target.closest?.('#chat code, .chip') && unitOf(event.target);
  if (!unit) return;
  document.querySelector(`li.unit[data-au="${unit}"]`)?.scrollIntoView({ block: 'center' });
  light(event);
};
document.addEventListener('mouseover', light);
document.addEventListener('focusin', light);
document.addEventListener('click', follow);
document.addEventListener('keydown', follow);
new MutationObserver(() => document.querySelectorAll('#chat code:not([tabindex])').forEach(e => {
  if (!UNIT.test(e.textContent.trim())) return;
  e.tabIndex = 0;
  e.setAttribute('role', 'link');
})).observe(document.body, { childList: true, subtree: true });
