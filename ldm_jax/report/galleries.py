"""Values of sections made of images: samples with viewer, sweeps, counterfactuals."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax.report import figures
from ldm_jax.report.wording import number
from ldm_jax.types import Array

# Pixels of all pictures of a page: as text at most 6 MB.
PIXELS = 4_500_000
MOST = 8  # volumes in a montage
ROWS = (
  ('real', 'Real', 'scans as the model sees them, after preprocessing'),
  (
    'reconstructed',
    'Reconstructed',
    'the same scans through the autoencoder: the best that any sample can look like',
  ),
  ('synthetic', 'Synthetic', 'samples drawn from the model'),
)


def image(png: bytes, alt: str) -> dict:
  """PNG bytes -> dict src, width, height, alt of an image inside the page."""
  width, height = figures.png_size(png)
  src = 'data:image/png;base64,' + base64.b64encode(png).decode('ascii')
  return {'src': src, 'width': width, 'height': height, 'alt': alt}


def strip(
  volumes: np.ndarray,
  title: str,
  note: str,
  alt: str,
  *,
  limits: tuple[float, float] | None = None,
  internal: bool = False,
  labels: Sequence[str] = (),
  max_pixels: int = PIXELS,
) -> dict:
  """Volumes (n,d,h,w) beside each other, as many in a row as the page has room for."""
  pictures = figures.columns(volumes, limits=limits, max_pixels=max_pixels)
  labels = labels or [''] * len(pictures)
  return {
    'title': title,
    'note': note,
    'internal': internal,
    'columns': [
      {'image': image(png, f'{alt}, {label or i + 1}'), 'label': label}
      for i, (png, label) in enumerate(zip(pictures, labels, strict=True))
    ],
  }


def upright(volumes: Array | Sequence[Array]) -> np.ndarray:
  """(n,d,h,w) with anterior at the top of each slice; flat pictures stay as they are.

  Rows of a volume increase towards anterior, those of a flat picture downwards.
  """
  volumes = figures.as_volumes(volumes)
  return volumes[:, :, ::-1] if volumes.shape[1] > 1 else volumes


def tiles(
  png: bytes,
  count: int,
  title: str,
  note: str,
  alt: str,
  internal: bool = False,
  labels: Iterable[str] = (),
) -> dict:
  """A tiled picture of `count` columns with its caption and labels below them."""
  return {
    'image': image(png, alt),
    'title': title,
    'note': note,
    'internal': internal,
    'count': count,
    'share': round(100 * count / 8) if count < 6 else 100,  # % of the page's width
    'labels': labels,
  }


def panels(
  pictures: Mapping[str, bytes], what: str, internal: Iterable[str] = ()
) -> list[dict]:
  """Drawn panels {title: PNG bytes} that stand side by side, and what they show.

  Args:
    pictures: of `plots`.
    what: they show.
    internal: titles of those that were computed from private scans.
  """
  return [
    {
      'title': title,
      'image': image(png, f'{what}: {title}'),
      'internal': title in internal or title.endswith('(internal)'),
    }
    for title, png in pictures.items()
  ]


def samples(
  images: Mapping[str, Any],
  spacing: Sequence[float] | None = None,
  pixels: int = PIXELS,
) -> dict | None:
  """Montages of real, reconstructed and synthetic volumes, and the viewer's sheets.

  Args:
    images: as of `index_page.write`.
    spacing: (3,) mm of a voxel (d,h,w); None for cubes.
    pixels: of all pictures together.
  """
  present = [row for row in ROWS if _num(images.get(row[0]))]
  if not present:
    return None
  # One window for all three rows: a difference in contrast shall be seen.
  limits = figures.window(figures.as_volumes(images[present[0][0]]))
  montages, sheets = [], []
  for key, name, note in present:
    volumes = upright(images[key])
    depth = volumes.shape[1]
    slices = ', '.join(map(str, figures.slice_numbers(depth, 3) + 1))
    where = f'slices {slices} of {depth}' if depth > 1 else '2D'
    people = images.get('patients') if key == 'synthetic' else None
    named = () if people is None else [f'patient {int(i) + 1}' for i in people[:MOST]]
    montages.append(
      strip(
        volumes[:MOST],
        name,
        f'{note} ({where}; one volume per column)',
        f'{name} volume',
        limits=limits,
        internal=_is_internal(images, key),
        labels=named,
        max_pixels=pixels // (4 * len(present)),
      )
    )
    most = pixels // (2 * len(present))
    sheet = _sheet(key, name, volumes, spacing, limits, max_pixels=most)
    sheets.append({**sheet, 'internal': _is_internal(images, key)})
  # Samples first: they are what a reader wants to leaf through.
  return {'montages': montages, 'sheets': sorted(sheets, key=_is_real)}


def labels(
  images: Mapping[str, Any], names: Sequence[str], pixels: int = PIXELS
) -> dict | None:
  """Montage of synthetic volumes below their label maps, and its legend.

  Args:
    images: as of `index_page.write`.
    names: of the classes, background first.
    pixels: of all pictures together.
  """
  if not _num(images.get('labels')) or not _num(images.get('synthetic')):
    return None
  volumes, maps = (upright(images[key])[:MOST] for key in ('synthetic', 'labels'))
  pictures = figures.overlaid(volumes, maps, max_pixels=pixels // 8)
  named = [
    {'image': image(png, f'Synthetic volume with its label map, {i + 1}'), 'label': ''}
    for i, png in enumerate(pictures)
  ]
  note = 'label maps over the samples above (one volume per column)'
  return {
    'strip': {
      'title': 'Synthetic, labelled',
      'note': note,
      'internal': False,
      'columns': named,
    },
    'legend': [
      (name, figures.label_colour(index)) for index, name in enumerate(names) if index
    ],
  }


def sweeps(
  found: Mapping[str, tuple[Sequence, Array]], pixels: int = PIXELS
) -> list[dict]:
  """One attribute varied, seed and all other attributes fixed: a strip for each."""
  strips = []
  for name, (values, volumes) in found.items():
    volumes = upright(volumes)
    count = min(9, len(volumes))
    chosen = np.unique(np.linspace(0, len(volumes) - 1, count).round().astype(int))
    labels = [_value(values[i]) for i in chosen]
    ends = f'from {labels[0]} to {labels[-1]}'
    most = pixels // (8 * len(found))
    strips.append(
      strip(
        volumes[chosen],
        name,
        ends,
        f'sample with {name}',
        labels=labels,
        max_pixels=most,
      )
    )
  return strips


def counterfactuals(
  images: Mapping[str, Any],
  spacing: Sequence[float] | None = None,
  pixels: int = PIXELS,
) -> dict:
  """Source, counterfactual and their difference: a picture a case, and the viewer."""
  internal, truths = _is_internal(images, 'counterfactuals'), images.get('truths')
  found = list(images.get('counterfactuals') or ())
  cases = []
  for i, (*volumes, text) in enumerate(found):
    source, changed, difference = upright(volumes)
    truth = None if truths is None else upright(truths[i][None])[0]
    most = pixels // (2 * len(found))
    picture, scale = figures.counterfactual(
      source, changed, difference, truth=truth, max_pixels=most
    )
    case = {
      'title': text,
      'internal': internal,
      'note': f'difference: blue darker, red brighter, full colour ±{number(scale)}',
      'image': image(picture, f'source, counterfactual and difference: {text}'),
    }
    cases.append(case)
  return {
    'internal': internal,
    'truths': truths is not None,
    'cases': cases,
    'sheets': _edited(found, spacing, internal, pixels // 4) if found else [],
  }


def _edited(found, spacing, internal, pixels):
  """Sheets of the viewer: what was edited, the result, and their difference."""
  source, changed, difference = (
    upright([np.asarray(case[i]) for case in found]) for i in range(3)
  )
  limits = figures.window(source, changed)
  scale = float(np.quantile(np.abs(difference), 0.999)) or 1.0
  sheets = [
    _sheet('source', 'Source', source, spacing, limits, max_pixels=pixels // 3),
    _sheet('changed', 'Counterfactual', changed, spacing, limits, pixels // 3),
    _sheet('difference', 'Difference', difference, spacing, (0.0, scale), pixels // 3),
  ]
  return [{**sheet, 'internal': internal} for sheet in sheets]


def _sheet(key, name, volumes, spacing, limits, max_pixels):
  picture, shape = figures.sprite(
    volumes, limits, max_pixels=max_pixels, signed=key == 'difference'
  )
  spacing = np.asarray((1, 1, 1) if spacing is None else spacing, float)
  size = ' '.join(f'{mm:g}' for mm in spacing * shape.pop('thinned'))
  return {
    'id': f'sheet-{key}',
    'name': name,
    'spacing': size,
    **image(picture, ''),
    **shape,
  }


def _is_internal(images: Mapping[str, Any], key: str) -> bool:
  """True when the pictures under `key` show scans of private patients."""
  return key in (images.get('internal') or ())


def _num(volumes: Array | None) -> int:
  return 0 if volumes is None else len(volumes)


def _is_real(sheet: Mapping) -> bool:
  return sheet['id'] != 'sheet-synthetic'


def _value(value: Any) -> str:
  try:
    return number(float(value))
  except (TypeError, ValueError):
    return str(value)
