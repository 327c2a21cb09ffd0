for (const viewer of document.querySelectorAll('.viewer')) {
  const canvas = viewer.querySelector('canvas');
  const context = canvas.getContext('2d');
  const choice = viewer.querySelector('select');
  const slider = viewer.querySelector('input');
  const place = viewer.querySelector('output');
  const draw = () => {
    const option = choice.selectedOptions[0];
    const sheet = document.getElementById(option.dataset.sheet);
    const {width, height, depth} = sheet.dataset;
    const w = +width, h = +height;
    slider.max = depth - 1;
    const slice = +slider.value;
    canvas.width = w; canvas.height = h;
    canvas.style.aspectRatio = w + ' / ' + h;
    context.drawImage(sheet, slice * w, option.dataset.row * h, w, h, 0, 0, w, h);
    place.textContent = (slice + 1) + ' of ' + depth;
  };
  const middle = () => {
    const option = choice.selectedOptions[0];
    const depth = +document.getElementById(option.dataset.sheet).dataset.depth;
    slider.max = depth - 1;
    slider.value = Math.floor(depth / 2);
  };
  choice.addEventListener('change', draw);
  slider.addEventListener('input', draw);
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    slider.value = +slider.value + Math.sign(event.deltaY);
    draw();
  }, {passive: false});
  const sheets = [...viewer.querySelectorAll('img')];
  Promise.all(sheets.map((sheet) => sheet.decode())).then(() => { middle(); draw(); });
}
