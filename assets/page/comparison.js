element.addEventListener('click', event => {
  if (event.target.closest('.close')) trigger('select', { index: 0, value: 'close' });
});
