element.addEventListener('click', event => {
  if (event.target.closest('.theme')) document.body.classList.toggle('dark');
  const link = event.target.closest('a[href^="#"]');
  if (link) { event.preventDefault(); document.querySelector(link.getAttribute('href'))?.scrollIntoView({ behavior: 'smooth' }); }
});
document.addEventListener('mouseover', event => {
  const source = event.target.closest?.('#chat code, .chip[data-au], li.unit');
  const unit = source && (source.dataset.au || source.textContent.trim());
  document.querySelectorAll('[data-au].lit').forEach(e => e.classList.remove('lit'));
  if (unit && /^AU\d+$/.test(unit)) document.querySelectorAll(`[data-au="${unit}"]`).forEach(e => e.classList.add('lit'));
});
