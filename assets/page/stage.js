element.addEventListener('click', event => {
  const face = event.target.closest('.face');
  if (face) trigger('select', { index: +face.dataset.index, value: face.dataset.index });
});
