"""Scans as pictures: volumes (n,d,h,w) in, PNG bytes out.

Slices are tiled pixel for pixel; large ones are thinned, never smoothed. Curves are
drawn in `plots`.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax.types import Array

# Classes of label maps (Okabe, Ito 2008: told apart by colour-blind people, too).
LABEL_COLOURS = np.array(
  [
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
  ],
  float,
)
OPACITY = 0.55
GAP = 2  # transparent pixels between tiles
WHITE, RED, BLUE = np.array([[255, 255, 255], [178, 24, 43], [33, 102, 172]], float)


def as_volumes(images: Array | Sequence[Array]) -> np.ndarray:
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
      f'expected images (n, d, h, w), got {images.shape}; add the axis of examples'
    )
  return np.nan_to_num(images)


def columns(
  volumes: Array | Sequence[Array],
  num_slices: int = 3,
  limits: tuple[float, float] | None = None,
  max_pixels: int = 1_000_000,
) -> list[bytes]:
  """A picture of each volume, evenly spaced slices below each other: -> PNG bytes.

  Args:
    volumes: (n,d,h,w).
    num_slices: most slices of each.
    limits: (black, white) intensities; None takes them from the volumes.
    max_pixels: of all pictures; larger slices are thinned.
  """
  volumes = as_volumes(volumes)
  limits = limits or window(volumes)
  chosen = _chosen(volumes, num_slices, max_pixels)
  return [encode_png(_grid(tiles[:, None])) for tiles in _grey(chosen, limits)]


def montage(
  volumes: Array | Sequence[Array],
  num_columns: int = 8,
  num_slices: int = 3,
  limits: tuple[float, float] | None = None,
) -> bytes:
  """One volume a column, evenly spaced slices below each other: -> PNG bytes.

  Args:
    volumes: (n,d,h,w).
    num_columns: most volumes shown.
    num_slices: most slices of each.
    limits: (black, white) intensities; None takes them from the volumes.
  """
  volumes = as_volumes(volumes)[:num_columns]
  chosen = volumes[:, slice_numbers(volumes.shape[1], num_slices)]
  tiles = _grey(chosen, limits or window(volumes)).swapaxes(0, 1)
  return encode_png(_grid(tiles))


def overlaid(
  volumes: Array,
  maps: Array,
  num_slices: int = 3,
  limits: tuple[float, float] | None = None,
  max_pixels: int = 1_000_000,
) -> list[bytes]:
  """As `columns`, in colour where a label map has a class above 0: -> PNG bytes.

  Args:
    volumes: (n,d,h,w).
    maps: class indices (n,d,h,w).
    num_slices, limits, max_pixels: as of `columns`.
  """
  volumes, maps = as_volumes(volumes), as_volumes(maps).astype(int)
  limits = limits or window(volumes)
  # Three numbers a pixel.
  chosen, classes = (_chosen(x, num_slices, max_pixels / 3) for x in (volumes, maps))
  grey = np.repeat(_grey(chosen, limits)[..., None], 3, -1).astype(float)
  colour = LABEL_COLOURS[classes % len(LABEL_COLOURS)]
  share = np.where(classes > 0, OPACITY, 0.0)[..., None]
  mixed = np.round(grey + share * (colour - grey)).astype(np.uint8)
  return [encode_png(_grid(tiles[:, None])) for tiles in mixed]


def label_colour(index: int) -> str:
  """Colour of a class in `overlaid`, as '#rrggbb'."""
  red, green, blue = LABEL_COLOURS[index % len(LABEL_COLOURS)].astype(int)
  return f'#{red:02x}{green:02x}{blue:02x}'


def sprite(
  volumes: Array | Sequence[Array],
  limits: tuple[float, float] | None = None,
  max_volumes: int = 12,
  max_pixels: int = 4_000_000,
  signed: bool = False,
) -> tuple[bytes, dict[str, Any]]:
  """All slices for the viewer: a row a volume, a column a slice.

  Large volumes are thinned until the sheet fits `max_pixels`.

  Args:
    volumes: (n,d,h,w).
    limits: (black, white) intensities; None takes them from the volumes.
    max_volumes, max_pixels: most shown.
    signed: as colours, blue below zero, white at zero, red at limits[1].

  Returns:
    PNG bytes, and dict num, depth, height, width (of one tile) and thinned (3,), how
    many voxels of the axes (d,h,w) became one.
  """
  volumes, thinned = as_volumes(volumes)[:max_volumes], np.ones(3, int)
  while volumes.size > max_pixels:
    if volumes.shape[1] > 24:
      volumes, thinned = volumes[:, ::2], thinned * (2, 1, 1)
    elif max(volumes.shape[2:]) > 128:
      volumes, thinned = volumes[:, :, ::2, ::2], thinned * (1, 2, 2)
    elif len(volumes) > 2:
      volumes = volumes[: len(volumes) // 2]
    elif min(volumes.shape[2:]) > 32:
      volumes, thinned = volumes[:, :, ::2, ::2], thinned * (1, 2, 2)
    else:
      break
  num, depth, height, width = volumes.shape
  limits = limits or window(volumes)
  drawn = _diverging(volumes / limits[1]) if signed else _grey(volumes, limits)
  pixels = np.moveaxis(drawn, 1, 2)
  sheet = encode_png(pixels.reshape(num * height, depth * width, *drawn.shape[4:]))
  shape = {'num': num, 'depth': depth, 'height': height, 'width': width}
  return sheet, {**shape, 'thinned': thinned.tolist()}


def counterfactual(
  source: Array,
  changed: Array,
  difference: Array,
  num_slices: int = 6,
  truth: Array | None = None,
  max_pixels: int = 4_000_000,
) -> tuple[bytes, float]:
  """Rows source, counterfactual, difference; a column a slice: (d,h,w) -> PNG bytes.

  Where the true counterfactual is known, it and its difference are two more rows.
  Slices are thinned until the picture fits `max_pixels`.

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
  while tiles.size > max_pixels and min(tiles.shape[2:4]) > 16:
    tiles = tiles[:, :, ::2, ::2]
  return encode_png(_grid(tiles)), scale


def encode_png(pixels: np.ndarray) -> bytes:
  """Lossless 8-bit PNG: uint8 (h, w[, c]) -> bytes.

  Args:
    pixels: grey; or of c channels, grey and opacity (2), colour (3), both (4).

  Raises:
    ValueError: for another type or shape.
  """
  kinds = ((), (2,), (3,), (4,))
  if pixels.dtype != np.uint8 or pixels.ndim < 2 or pixels.shape[2:] not in kinds:
    raise ValueError(
      f'expected uint8 pixels (h, w) or (h, w, 2 to 4), got {pixels.dtype} '
      f'{pixels.shape}; scale the intensities first'
    )
  buffer = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, 'png', optimize=True)
  return buffer.getvalue()


def png_size(data: bytes) -> tuple[int, int]:
  """(width, height) of PNG bytes."""
  return Image.open(io.BytesIO(data)).size


def window(*arrays: np.ndarray) -> tuple[float, float]:
  """(black, white) intensities: almost the whole range, black at 0 where it fits."""
  low = min(float(np.quantile(a, 0.005)) for a in arrays)
  high = max(float(np.quantile(a, 0.998)) for a in arrays)
  if -0.1 * high < low < 0.2 * high:
    low = 0.0
  return low, high if high > low else low + 1.0


def slice_numbers(depth: int, count: int) -> np.ndarray:
  """Evenly spaced slices, without the outermost ones where there are enough."""
  if depth <= count:
    return np.arange(depth)
  return np.floor((np.arange(count) + 0.5) * depth / count).astype(int)


def _chosen(volumes, num_slices, max_pixels):
  """Evenly spaced slices (n,s,h,w), thinned while they have more pixels."""
  chosen = volumes[:, slice_numbers(volumes.shape[1], num_slices)]
  while chosen.size > max_pixels and min(chosen.shape[2:]) > 16:
    chosen = chosen[:, :, ::2, ::2]
  return chosen


def _grid(tiles):
  """(rows, columns, h, w[, 3]) uint8 -> one image (h, w, 2 or 4), gaps transparent."""
  tiles = tiles if tiles.ndim == 5 else tiles[..., None]
  tiles = np.concatenate([tiles, np.full_like(tiles[..., :1], 255)], -1)
  margins = [(0, GAP if axis in (2, 3) else 0) for axis in range(tiles.ndim)]
  tiles = np.pad(tiles, margins)
  rows, columns, height, width, *colours = tiles.shape
  canvas = tiles.swapaxes(1, 2).reshape(rows * height, columns * width, *colours)
  return canvas[:-GAP, :-GAP]


def _grey(array, limits):
  scaled = (array - limits[0]) / (limits[1] - limits[0])
  return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _diverging(values):
  """[-1, 1] -> colour: blue below zero, white at zero, red above."""
  values = np.clip(values, -1, 1)[..., None]
  colour = WHITE + np.abs(values) * (np.where(values > 0, RED, BLUE) - WHITE)
  return np.round(colour).astype(np.uint8)
