"""Groups of patients by an attribute, so that one which the model neglects is seen.

Noise and clipping cost small groups most [Bagdasaryan19, arXiv 1905.12101]: a figure
over all patients hides it. The rule that joins small groups looks at how many patients
they have and at nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import frechet
from ldm_jax.types import Array, Config

UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True)
class Group:
  """Patients with some values of an attribute.

  Attributes:
    name: categories or limits, as text.
    cells: numbers of the attribute's categories or bands that belong to it.
    num_patients: among those it was formed from.
  """

  name: str
  cells: tuple[int, ...]
  num_patients: int


def formed(
  attribute: Attribute, codes: Array, patients: Array, section: Config
) -> list[Group]:
  """Groups of real patients by an attribute; [] where only one is left.

  A number is divided into bands of equal width over its range in the schema, which no
  patient's value moves. As long as a group has fewer than `section.least` patients, the
  smallest one is joined with its smaller neighbour (of a number), or with the next
  smallest group (of a category). A patient is in the group of the first scan.

  Args:
    attribute: of the schema.
    codes: (n,) its encoded values, NaN where unknown.
    patients: (n,) patient of each scan.
    section: config.evaluate.groups: least, bands.
  """
  cells = cells_of(attribute, codes, section.bands)
  _, first = np.unique(np.asarray(patients), return_index=True)
  counts = np.bincount(cells[first], minlength=_num_cells(attribute, section.bands))
  # The last cell is of unknown values: it has no neighbours.
  found: list[tuple[tuple[int, ...], int]]
  found = [((i,), int(n)) for i, n in enumerate(counts[:-1])]
  found += [((len(counts) - 1,), int(counts[-1]))] if counts[-1] else []
  is_ordered = attribute.kind == 'continuous'
  while len(found) > 1 and min(n for _, n in found) < section.least:
    place = min(range(len(found)), key=lambda i: found[i][1])
    others = [i for i in range(len(found)) if i != place]
    if is_ordered:
      nearest = min(abs(i - place) for i in others)
      others = [i for i in others if abs(i - place) == nearest]
    other = min(others, key=lambda i: found[i][1])
    low, high = sorted((place, other))
    joined = (
      tuple(sorted(found[low][0] + found[high][0])),
      found[low][1] + found[high][1],
    )
    found = [*found[:low], joined, *found[low + 1 : high], *found[high + 1 :]]
  if len(found) < 2:
    return []
  return [Group(_name(attribute, c, section.bands), c, n) for c, n in found]


def cells_of(attribute: Attribute, codes: Array, num_bands: int) -> np.ndarray:
  """Encoded values (n,) -> number of their category or band; the last is unknown."""
  codes, last = np.asarray(codes, np.float64), _num_cells(attribute, num_bands) - 1
  known = np.isfinite(codes)
  values = np.where(known, codes, 0)
  if attribute.kind == 'continuous':  # encoded from -1 to 1
    values = np.floor((values + 1) / 2 * num_bands)
  return np.where(known, np.clip(values, 0, last - 1), last).astype(int)


def of_schema(
  schema: Schema, attributes: Array, patients: Array, section: Config
) -> Iterator[tuple[int, Attribute, list[Group]]]:
  """(column, attribute, groups) of every attribute that `section.by` names."""
  for name in section.by:
    if name in schema.names:
      column = schema.names.index(name)
      attribute = schema[name]
      codes = np.asarray(attributes)[:, column]
      yield column, attribute, formed(attribute, codes, patients, section)


def members(
  group: Group, attribute: Attribute, codes: Array, section: Config
) -> np.ndarray:
  """(n,) bool, whether scans with these encoded values belong to a group."""
  return np.isin(cells_of(attribute, codes, section.bands), group.cells)


def distances(
  real: np.ndarray,
  synthetic: np.ndarray,
  attributes: tuple[Array, Array],
  patients: Array,
  schema: Schema,
  section: Config,
  num_resamples: int = 100,
) -> dict[str, Any]:
  """Kernel and Frechet distance of every group from its synthetic counterpart.

  Kernel distances of groups can be compared, Frechet distances only with care: their
  bias grows as a group shrinks.

  Args:
    real, synthetic: features (n,f) and (m,f).
    attributes: encoded values (n,k) of the real and requests (m,k) of the synthetic.
    patients: (n,) patient of each real scan.
    schema: of the attributes.
    section: config.evaluate.groups.
    num_resamples: random halves of the intervals.

  Returns:
    {attribute: {group: {'kid', 'frechet'}}}; None for a figure without two volumes of
    either kind.
  """
  found: dict[str, Any] = {}
  for column, attribute, groups in of_schema(schema, attributes[0], patients, section):
    for group in groups:
      a, b = (
        features[members(group, attribute, np.asarray(values)[:, column], section)]
        for features, values in zip((real, synthetic), attributes, strict=True)
      )
      enough = min(len(a), len(b)) > 1
      rows = members(group, attribute, np.asarray(attributes[0])[:, column], section)
      options = {'num_resamples': num_resamples}
      own = np.asarray(patients)[rows]
      found.setdefault(attribute.name, {})[group.name] = {
        'kid': frechet.kernel_distance(a, b, own, **options) if enough else None,
        'frechet': frechet.frechet_distance(a, b, own, **options) if enough else None,
      }
  return found


def _num_cells(attribute, num_bands):
  ordinary = num_bands if attribute.kind == 'continuous' else len(attribute.categories)
  return ordinary + 1


def _name(attribute: Attribute, cells: Sequence[int], num_bands: int) -> str:
  last = _num_cells(attribute, num_bands) - 1
  known = [cell for cell in cells if cell < last]
  words = []
  if known and attribute.kind == 'continuous':
    low, high = attribute.limits
    width = (high - low) / num_bands
    ends = (low + width * known[0], low + width * (known[-1] + 1))
    words.append(f'{ends[0]:g} to {ends[1]:g} {attribute.unit}'.strip())
  elif known:
    names = attribute.labels or attribute.categories
    words += [str(names[cell]) for cell in known]
  return ', '.join([*words, *([UNKNOWN] if last in cells else [])])
