// Translates elements with data-t (their text) and data-t-label (their aria-label) as they appear,
// and the sentences in Gradio's own messages. In a sentence's key {} stands for what differs.
(() => {
  const known = window.FEALLM_WORDS;
  const family = tag => tag.split('-')[0];
  const asked = navigator.language;  // as Gradio's own parts: the first language only
  const wanted = asked in known ? asked : Object.keys(known).find(k => family(k) === family(asked));
  const words = known[wanted];
  if (!words) return;
  const plain = text => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const patterns = Object.keys(words).filter(key => key.includes('{}'))
    .map(key => [new RegExp(`^${key.split('{}').map(plain).join('(.+?)')}$`), words[key]]);
  const say = text => {
    if (words[text]) return words[text];
    for (const [pattern, translation] of patterns) {
      const found = text.match(pattern);
      if (found) return translation.replaceAll('{}', () => (found.shift(), found[0]));
    }
  };
  const SENTENCES = '[data-t], #chat .welcome *, .toast-message-text';
  const translate = () => {
    document.documentElement.lang = wanted;
    document.querySelectorAll(SENTENCES).forEach(e => {
      const said = !e.firstElementChild && say(e.textContent.trim());
      if (said) e.textContent = said;
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
