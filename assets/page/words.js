// Translates elements with data-t (their text) and data-t-label (their aria-label) as they appear.
(() => {
  const known = window.FEALLM_WORDS;
  const family = tag => tag.split('-')[0];
  const wanted = navigator.languages
    .map(tag => family(tag) === 'en' ? 'en' : Object.keys(known).find(k => k === tag || family(k) === family(tag)))
    .find(Boolean);
  const words = known[wanted];
  if (!words) return;
  const translate = () => {
    document.documentElement.lang = wanted;
    document.querySelectorAll('[data-t]').forEach(e => {
      const word = words[e.textContent.trim()];
      if (word) e.textContent = word;
    });
    document.querySelectorAll('[data-t-key]').forEach(e => {
      const word = words[e.dataset.tKey]?.replace('{n}', e.dataset.n);
      if (word && word !== e.textContent) e.textContent = word;
    });
    document.querySelectorAll('[data-t-label]').forEach(e => {
      const word = words[e.getAttribute('aria-label')];
      if (word) e.setAttribute('aria-label', word);
    });
  };
  let queued = 0;  // one pass a frame, however much changed
  new MutationObserver(() => { queued ||= requestAnimationFrame(() => { queued = 0; translate(); }); })
    .observe(document.documentElement, { childList: true, characterData: true, subtree: true });
})();
