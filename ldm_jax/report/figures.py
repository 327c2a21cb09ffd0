"""Pictures of the report: volumes (n,d,h,w) and numbers in, PNG bytes out.

Scans are tiled pixel for pixel, without a plotting library in between; curves and
scatter plots are drawn by matplotlib without a display.

Arrays as PNG: grey (h,w) or colour (h,w,3) uint8 -> bytes, and data URIs.

[PNG] W3C, Portable Network Graphics, 2nd edition, 2003.
"""

import base64
import io
import math
import struct
import zlib

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, ACCENT, WARM = '#1f2933', '#8a96a3', '#1f6f8b', '#c2572b'
GAP = 2  # pixels of white between tiles
NOT_A_METRIC = {'step', 'steps', 'time', 'steps_per_second', 'stage'}


def as_volumes(images):
  """(n,d,h,w), (n,d,h,w,1), (n,h,w) or a list of volumes -> (n,d,h,w) float32.

  Raises:
    ValueError: for another number of axes.
  """
  images = np.asarray(images, np.float32)
  if images.ndim == 5 and images.shape[-1] == 1:
    images = images[..., 0]
  if images.ndim == 3:
    images = images[:, None]
  if images.ndim != 4:
    raise ValueError(
      f'images of shape {images.shape} came; (n, d, h, w) is required; add the axis '
      'of examples'
    )
  return np.nan_to_num(images)


def montage(volumes, num_columns=8, num_slices=3, limits=None):
  """One volume a column, evenly spaced slices below each other: -> PNG bytes.

  Args:
    volumes: (n,d,h,w).
    num_columns: most volumes shown.
    num_slices: most slices of each.
    limits: (black, white) intensities; None takes them from the volumes.
  """
  volumes = as_volumes(volumes)[:num_columns]
  pixels = _grey(volumes, limits or window(volumes))
  return encode_png(_tile(pixels, num_slices))


def sprite(volumes, limits=None, max_volumes=12, max_pixels=4_000_000):
  """All slices for the viewer: a row a volume, a column a slice.

  Large volumes are thinned until the sheet fits `max_pixels`.

  Returns:
    PNG bytes, and dict num, depth, height, width (of one tile).
  """
  volumes = as_volumes(volumes)[:max_volumes]
  while volumes.size > max_pixels:
    if volumes.shape[1] > 24:
      volumes = volumes[:, ::2]
    elif max(volumes.shape[2:]) > 128:
      volumes = volumes[:, :, ::2, ::2]
    elif len(volumes) > 2:
      volumes = volumes[: len(volumes) // 2]
    else:
      break
  num, depth, height, width = volumes.shape
  pixels = _grey(volumes, limits or window(volumes)).transpose(0, 2, 1, 3)
  sheet = encode_png(pixels.reshape(num * height, depth * width))
  return sheet, {'num': num, 'depth': depth, 'height': height, 'width': width}


def counterfactual(source, changed, difference, num_slices=6, truth=None):
  """Rows source, counterfactual, difference; a column a slice: (d,h,w) -> PNG bytes.

  Where the true counterfactual is known, it and its difference are two more rows.

  Returns:
    PNG bytes and the difference that full colour stands for (blue less, red more).
  """
  source, changed, difference = (
    as_volumes(v[None])[0] for v in map(np.asarray, (source, changed, difference))
  )
  limits = window(source, changed)
  scale = float(np.quantile(np.abs(difference), 0.999)) or 1.0
  rows = [
    np.repeat(_grey(source, limits)[..., None], 3, axis=-1),
    np.repeat(_grey(changed, limits)[..., None], 3, axis=-1),
    _diverging(difference / scale),
  ]
  if truth is not None:
    truth = as_volumes(np.asarray(truth)[None])[0]
    rows.append(np.repeat(_grey(truth, limits)[..., None], 3, axis=-1))
    rows.append(_diverging((truth - source) / scale))
  chosen = slice_numbers(len(source), num_slices)
  tiles = np.stack([row[chosen] for row in rows])
  return encode_png(_grid(tiles)), scale


def training_curves(events):
  """Loss against step: list of events -> {title: PNG bytes}, one a stage.

  A step logged twice (an interrupted run that resumed) counts once, with the later
  value. Stages without a logged loss are left out.
  """
  pictures = {}
  for stage, (name, values, internal) in _losses(events).items():
    steps = sorted(values)
    series = np.array([values[step] for step in steps])
    figure, axis = _panel(2.5)
    marker = 'o' if len(steps) < 3 else None
    axis.plot(steps, series, color=WARM if internal else ACCENT, lw=1.4, marker=marker)
    if series.min() > 0 and series.max() > 8 * series.min():
      axis.set_yscale('log')
    axis.set_xlabel('step', fontsize=8, color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    pictures[f'{stage}: {name}' + (' (internal)' if internal else '')] = _saved(figure)
  return pictures


def scatter(control):
  """Measured against requested values with the identity line: -> {name: PNG bytes}.

  Args:
    control: attribute name -> (requested (n,), measured (n,)).
  """
  pictures = {}
  for name, pair in control.items():
    pair = np.stack([np.asarray(side, float) for side in pair])
    requested, measured = pair[:, np.isfinite(pair).all(axis=0)]
    if not requested.size:
      continue
    low = min(requested.min(), measured.min())
    high = max(requested.max(), measured.max())
    margin = 0.06 * (high - low or 1)
    limits = (low - margin, high + margin)
    figure, axis = _panel(3.1)
    axis.plot(limits, limits, color=MUTED, lw=1, ls=(0, (4, 3)))
    axis.plot(requested, measured, 'o', ms=3.5, color=ACCENT, alpha=0.75, mew=0)
    axis.set(xlim=limits, ylim=limits, aspect='equal')
    for line in (axis.xaxis, axis.yaxis):
      line.set_major_locator(MaxNLocator(4))
    axis.set_xlabel('requested', fontsize=8, color=INK)
    axis.set_ylabel('measured', fontsize=8, color=INK)
    pictures[name] = _saved(figure)
  return pictures


def window(*arrays):
  """(black, white) intensities: almost the whole range, black at 0 where it fits."""
  low = min(float(np.quantile(a, 0.005)) for a in arrays)
  high = max(float(np.quantile(a, 0.998)) for a in arrays)
  if -0.1 * high < low < 0.2 * high:
    low = 0.0
  return low, high if high > low else low + 1.0


def slice_numbers(depth, count):
  """Evenly spaced slices, without the outermost ones where there are enough."""
  if depth <= count:
    return np.arange(depth)
  return np.floor((np.arange(count) + 0.5) * depth / count).astype(int)


def _tile(volumes, num_slices):
  chosen = slice_numbers(volumes.shape[1], num_slices)
  return _grid(volumes[:, chosen].swapaxes(0, 1))


def _grid(tiles):
  """(rows, columns, h, w[, 3]) uint8 -> one image with white gaps."""
  rows, columns, height, width = tiles.shape[:4]
  canvas = np.full(
    (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, *tiles.shape[4:]),
    255,
    np.uint8,
  )
  for row in range(rows):
    for column in range(columns):
      top, left = row * (height + GAP), column * (width + GAP)
      canvas[top : top + height, left : left + width] = tiles[row, column]
  return canvas


def _grey(array, limits):
  scaled = (array - limits[0]) / (limits[1] - limits[0])
  return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _diverging(values):
  """[-1, 1] -> colour: blue below zero, white at zero, red above."""
  values = np.clip(values, -1, 1)[..., None]
  white, red, blue = np.array([[255, 255, 255], [178, 24, 43], [33, 102, 172]], float)
  colour = white + np.abs(values) * (np.where(values > 0, red, blue) - white)
  return np.round(colour).astype(np.uint8)


def _losses(events):
  """stage -> (metric name, {step: value}, internal)."""
  found = {}
  for event in events:
    stage, step = event.get('stage'), event.get('step')
    if stage is None or not isinstance(step, int | float):
      continue
    names = [
      name
      for name, value in event.items()
      if name not in NOT_A_METRIC
      and isinstance(value, int | float)
      and not isinstance(value, bool)
      and math.isfinite(value)
    ]
    known = found.get(stage)
    name = known[0] if known else next(iter(sorted(names, key='loss'.__ne__)), None)
    if name in names:
      values = known[1] if known else {}
      values[step] = event[name]
      found[stage] = (name, values, bool(event.get('internal')))
  return found


def _panel(height):
  figure = Figure(figsize=(3.2, height), layout='constrained')
  axis = figure.subplots()
  axis.tick_params(labelsize=7, colors=INK, length=3, which='both')
  axis.grid(color='#e5e9ee', lw=0.6)
  axis.set_axisbelow(True)
  for side, spine in axis.spines.items():
    spine.set_visible(side in ('left', 'bottom'))
    spine.set_color('#c3ccd5')
  return figure, axis


def _saved(figure):
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=160, metadata={'Software': None})
  return buffer.getvalue()


def encode_png(pixels):
  """Lossless 8-bit PNG: uint8 (h, w) or (h, w, 3) -> bytes. [PNG] Sec. 5, 9

  Raises:
    ValueError: for another type or shape.
  """
  pixels = np.ascontiguousarray(pixels)
  grey = pixels.ndim == 2
  if pixels.dtype != np.uint8 or not (grey or pixels.shape[2:] == (3,)):
    raise ValueError(
      f'pixels {pixels.dtype} {pixels.shape} came; uint8 (h, w) or (h, w, 3) is '
      'required; scale the intensities first'
    )
  height, width = pixels.shape[:2]
  rows = pixels.reshape(height, -1)
  above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
  # Filter 2 ('up'): neighbouring rows of a scan differ little.
  filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
  header = struct.pack('>IIBBBBB', width, height, 8, 0 if grey else 2, 0, 0, 0)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      _png_chunk(b'IHDR', header),
      _png_chunk(b'IDAT', zlib.compress(filtered.tobytes(), 9)),
      _png_chunk(b'IEND', b''),
    ]
  )


def png_size(data):
  """(width, height) of PNG bytes."""
  return struct.unpack('>II', data[16:24])


def data_uri(data):
  """PNG bytes -> text for an image's src."""
  return 'data:image/png;base64,' + base64.b64encode(data).decode('ascii')


def _png_chunk(kind, body):
  checksum = zlib.crc32(kind + body)
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', checksum)
