// what a visitor opened stays open when another face is shown
let open = false;
element.addEventListener('toggle', event => { open = event.target.open; }, true);
watch('value', () => {
  const details = element.querySelector('details');
  if (details) details.open = open;
});
