"""Values of sections made of images: samples with viewer, sweeps, counterfactuals."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax.report import figures
from ldm_jax.report.wording import number
from ldm_jax.types import Array

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


def panels(pictures: Mapping[str, bytes], what: str) -> list[dict]:
  """Drawn panels {title: PNG bytes} that stand side by side, and what they show."""
  return [
    {'title': title, 'image': image(png, f'{what}: {title}')}
    for title, png in pictures.items()
  ]


def samples(images: Mapping[str, Any]) -> dict | None:
  """Montages of real, reconstructed and synthetic volumes, and the viewer's sheets.

  Args:
    images: as of `index_page.write`.
  """
  present = [row for row in ROWS if _num(images.get(row[0]))]
  if not present:
    return None
  # One window for all three rows: a difference in contrast shall be seen.
  limits = figures.window(figures.as_volumes(images[present[0][0]]))
  montages, sheets = [], []
  for key, name, note in present:
    volumes = figures.as_volumes(images[key])
    depth = volumes.shape[1]
    slices = ', '.join(map(str, figures.slice_numbers(depth, 3) + 1))
    where = f'slices {slices} of {depth}' if depth > 1 else '2D'
    montages.append(
      tiles(
        figures.montage(volumes, limits=limits),
        min(8, len(volumes)),
        name,
        f'{note} ({where}; one volume per column)',
        f'{name} volumes',
        _is_internal(images, key),
      )
    )
    picture, shape = figures.sprite(volumes, limits)
    sheets.append({'id': f'sheet-{key}', 'name': name, **image(picture, ''), **shape})
  # Samples first: they are what a reader wants to leaf through.
  return {'montages': montages, 'sheets': sorted(sheets, key=_is_real)}


def sweeps(found: Mapping[str, tuple[Sequence, Array]]) -> list[dict]:
  """One attribute varied, seed and all other attributes fixed: a strip for each."""
  strips = []
  for name, (values, volumes) in found.items():
    volumes = figures.as_volumes(volumes)
    count = min(9, len(volumes))
    chosen = np.unique(np.linspace(0, len(volumes) - 1, count).round().astype(int))
    labels = [_value(values[i]) for i in chosen]
    picture = figures.montage(volumes[chosen], num_columns=len(chosen))
    ends = f'from {labels[0]} to {labels[-1]}'
    alt = f'samples with {name} {ends}'
    strips.append(tiles(picture, len(chosen), name, ends, alt, labels=labels))
  return strips


def counterfactuals(images: Mapping[str, Any]) -> dict:
  """Source, counterfactual and their difference, one picture a case."""
  internal, truths = _is_internal(images, 'counterfactuals'), images.get('truths')
  cases = []
  for i, (source, changed, difference, text) in enumerate(
    images.get('counterfactuals') or ()
  ):
    truth = None if truths is None else truths[i]
    picture, scale = figures.counterfactual(source, changed, difference, truth=truth)
    case = {
      'title': text,
      'internal': internal,
      'note': f'difference: blue darker, red brighter, full colour ±{number(scale)}',
      'image': image(picture, f'source, counterfactual and difference: {text}'),
    }
    cases.append(case)
  return {'internal': internal, 'truths': truths is not None, 'cases': cases}


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
