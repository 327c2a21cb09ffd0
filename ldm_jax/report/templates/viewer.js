// A sheet holds volumes as rows and slices as columns. Planes are put together voxel by
// voxel, in true proportions.
for (const viewer of document.querySelectorAll('.viewer')) {
  const choice = viewer.querySelector('select');
  const panes = [...viewer.querySelectorAll('.planes > div')].map((pane) => ({
    pane, canvas: pane.querySelector('canvas'), slider: pane.querySelector('input'),
    place: pane.querySelector('output'),
  }));
  const pixels = new Map();
  let at = null;

  const read = (sheet) => {
    if (!pixels.has(sheet)) {
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [sheet.naturalWidth, sheet.naturalHeight];
      const context = canvas.getContext('2d', {willReadFrequently: true});
      context.drawImage(sheet, 0, 0);
      const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
      pixels.set(sheet, new Uint32Array(data.buffer));
    }
    return pixels.get(sheet);
  };

  // Columns, rows and place of a voxel of each plane; rows lead downwards. A sheet's
  // rows lead downwards, too, from anterior, its slices upwards.
  const planes = ([depth, height, width], [z, y, x]) => [
    [width, height, (c, r) => [z, r, c]],
    [width, depth, (c, r) => [depth - 1 - r, y, c]],
    [height, depth, (c, r) => [depth - 1 - r, height - 1 - c, x]],
  ];

  const draw = () => {
    const option = choice.selectedOptions[0];
    if (!option) return;
    const sheet = document.getElementById(option.dataset.sheet);
    const {depth, height, width, spacing} = sheet.dataset;
    const shape = [+depth, +height, +width], mm = spacing.split(' ').map(Number);
    at = (at || shape.map((n) => n >> 1)).map((n, i) => Math.min(n, shape[i] - 1));
    const source = read(sheet), stride = shape[0] * shape[2];
    const first = option.dataset.row * shape[1];
    const sizes = [[mm[2], mm[1]], [mm[2], mm[0]], [mm[1], mm[0]]];
    planes(shape, at).forEach(([columns, rows, voxel], i) => {
      const {pane, canvas, slider, place} = panes[i];
      pane.hidden = shape[0] === 1 && i > 0;
      [canvas.width, canvas.height] = [columns, rows];
      canvas.style.aspectRatio = columns * sizes[i][0] + ' / ' + rows * sizes[i][1];
      const image = new ImageData(columns, rows);
      const target = new Uint32Array(image.data.buffer);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          const [z, y, x] = voxel(c, r);
          target[r * columns + c] = source[(first + y) * stride + z * shape[2] + x];
        }
      }
      canvas.getContext('2d').putImageData(image, 0, 0);
      slider.max = shape[i] - 1;
      slider.value = at[i];
      place.textContent = (at[i] + 1) + ' of ' + shape[i];
    });
    panes[0].pane.parentNode.classList.toggle('flat', shape[0] === 1);
    viewer.dataset.at = at;
  };

  choice.addEventListener('change', draw);
  panes.forEach(({canvas, slider}, i) => {
    slider.addEventListener('input', () => { at[i] = +slider.value; draw(); });
    canvas.addEventListener('click', (event) => {
      const {dataset} = document.getElementById(choice.selectedOptions[0].dataset.sheet);
      const shape = [+dataset.depth, +dataset.height, +dataset.width];
      const [columns, rows, voxel] = planes(shape, at)[i];
      const box = canvas.getBoundingClientRect();
      const c = Math.floor((event.clientX - box.left) / box.width * columns);
      const r = Math.floor((event.clientY - box.top) / box.height * rows);
      at = voxel(c, r);
      draw();
    });
  });
  const sheets = [...viewer.querySelectorAll('img')];
  Promise.all(sheets.map((sheet) => sheet.decode())).then(draw);
}

const shown = document.getElementById('internal');
if (shown) {
  shown.addEventListener('change', () => {
    document.body.classList.toggle('without', !shown.checked);
  });
  document.getElementById('without').addEventListener('click', () => {
    const copy = document.documentElement.cloneNode(true);
    for (const part of copy.querySelectorAll('.internal, .switch')) part.remove();
    const page = new Blob(['<!DOCTYPE html>', copy.outerHTML], {type: 'text/html'});
    const link = document.createElement('a');
    link.href = URL.createObjectURL(page);
    link.download = 'report-without-internal-parts.html';
    link.click();
  });
}
