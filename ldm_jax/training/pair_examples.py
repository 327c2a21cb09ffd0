"""Training on pairs of scans: the examples, and which parts of them are dropped.

[Brooks23] InstructPix2Pix, arXiv 2211.09800; [Yeganeh25] arXiv 2412.20651 applies it to
ageing. An example is the latent of the later scan with the attributes of the later
visit; the earlier latent and the years between are the pair's part of its condition
(`models.conditions.earlier_visit`). All pairs of a patient are one row of
`patients.patient_arrays`: they enter one loss, whose gradient is clipped once, so the
patient is the unit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.store.split import Split
from ldm_jax.data.store.visit_pairs import EntryPairs
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.types import Array


class Examples(NamedTuple):
  """Replaces a split in `patients.patient_arrays`, with latents in the same order.

  Attributes:
    patient_entries: for each patient, the indices of his or her examples.
    attributes: (e,k) conditions, with the pair's part at the end.
  """

  patient_entries: list
  attributes: np.ndarray


def examples(
  split: Split,
  latents: np.ndarray,
  conditions: np.ndarray,
  pairs: EntryPairs,
  both_directions: bool = False,
  singles: bool = True,
) -> tuple[Examples, np.ndarray]:
  """Makes an example of every pair, for every version of its scans.

  Args:
    split: with `patient_entries`.
    latents: (v n,...,c), v versions of the n entries one after the other; version i of
      a target is paired with version i of its source.
    conditions: (n,k) of the entries.
    pairs: `data.store.visit_pairs.EntryPairs` of the split.
    both_directions: also from the later scan to the earlier, with negative years.
    singles: whether a patient without any pair contributes single scans without source.

  Returns:
    (Examples, latents (e,...,c)).

  Raises:
    ValueError: there is no pair.
  """
  if not len(pairs.years):
    raise ValueError(
      'expected pairs of scans within adapt.pairs.min_years and max_years, got none '
      f'among the {len(split.patient_entries)} patients of the private cohort. Pairs '
      'need several visits of a patient, with an age or a time: widen the limits, or '
      'set --config.adapt.pairs.use=False.'
    )
  ways = [(pairs.earlier, pairs.later, pairs.years)]
  if both_directions:
    ways.append((pairs.later, pairs.earlier, -pairs.years))
  sources, targets, years = map(np.concatenate, zip(*ways, strict=True))
  count = len(conditions)
  first = np.arange(0, len(latents), count)[:, None]
  groups: list[np.ndarray] = []
  rows: list[tuple] = []
  for entries in split.patient_entries:
    own = np.flatnonzero(np.isin(targets, entries))
    found = [
      (start + targets[i], start + sources[i], years[i])
      for start in first.ravel()
      for i in own
    ]
    if not found and singles:
      found = [(index, -1, np.nan) for index in (first + np.asarray(entries)).ravel()]
    groups.append(np.arange(len(rows), len(rows) + len(found)))
    rows += found
  targets, sources, years = map(np.asarray, zip(*rows, strict=True))
  of_source = latents[sources].astype(np.float32)
  of_source[sources < 0] = np.nan
  part = np.asarray(earlier_visit.join(years, of_source))
  wide = np.concatenate([conditions[targets % count], part], 1)
  return Examples(groups, wide.astype(np.float32)), latents[targets]


class Drops(NamedTuple):
  """Shares of examples from which a part of the condition is dropped.

  Attributes:
    condition: attributes and years are dropped, the source is kept.
    source: source and years are dropped.
    both: everything is dropped.
    column: first column of the pair's part in a condition.
    change_scale: what the network learns where there is a source: None for the later
      scan; a number for the change to it, in this unit.
  """

  condition: float
  source: float
  both: float
  column: int
  change_scale: float | None = None


def withheld(
  drops: Drops, conditions: Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Draws for each example which parts of its condition are dropped.

  Args:
    drops: Drops.
    conditions: (b,k). keys: (b,).

  Returns:
    (drop (b,), conditions with NaN where the source is dropped); one draw decides both,
    so the three shares are disjoint.
  """
  u = jax.vmap(jax.random.uniform)(keys)
  drop = u < drops.condition + drops.both
  hidden = (u >= drops.condition) & (u < drops.condition + drops.both + drops.source)
  in_pair = jnp.arange(conditions.shape[1]) >= drops.column
  return drop, jnp.where(hidden[:, None] & in_pair, jnp.nan, conditions)
