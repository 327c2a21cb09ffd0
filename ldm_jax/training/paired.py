"""Training on pairs of scans: which examples there are, what of each is withheld.

[Brooks23] InstructPix2Pix, arXiv 2211.09800; [Yeganeh25] arXiv 2412.20651 does so for
ageing. An example is the later scan's latent under the later visit's attributes, with
the earlier latent and the years between as the pair's part of its condition
(`models.paired`). All pairs of a patient are one row of `private.patient_arrays`: they
enter one loss, whose gradient is clipped once, so the patient stays the unit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.longitudinal import EntryPairs
from ldm_jax.data.split import Split
from ldm_jax.models import paired
from ldm_jax.types import Array


class Examples(NamedTuple):
  """In place of a split for `private.patient_arrays`, with latents in this order.

  Attributes:
    patient_entries: per patient the indices of his examples.
    attributes: (e,k) conditions, the pair's part behind all else.
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
  """Makes an example of every pair, in every version of its scans.

  Args:
    split: with `patient_entries`.
    latents: (v n,...,c), v versions of the entries one after the other; version i of a
      target goes with version i of its source.
    conditions: (n,k) of the entries.
    pairs: `data.longitudinal.EntryPairs` of the split.
    both_directions: also from the later scan to the earlier, with years below zero.
    singles: a patient without any pair gives his scans, each without a source.

  Returns:
    (Examples, latents (e,...,c)).

  Raises:
    ValueError: there is no pair.
  """
  if not len(pairs.years):
    raise ValueError(
      f'adapt.pairs.use is set, but the {len(split.patient_entries)} patients of the '
      'private cohort have no pair of scans within adapt.pairs.min_years and '
      'max_years. Required are several visits of some patients, with an age or a time; '
      'widen the limits, or set --config.adapt.pairs.use=False.'
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
  part = np.asarray(paired.join(years, of_source))
  wide = np.concatenate([conditions[targets % count], part], 1)
  return Examples(groups, wide.astype(np.float32)), latents[targets]


class Drops(NamedTuple):
  """Shares of examples from which something is withheld, and where a pair begins.

  Attributes:
    condition: without attributes and years, but with the source.
    source: without source and years.
    both: without either.
    column: of a condition, from which on it is the pair's part.
    change_scale: what the network learns where there is a source: None, the later scan;
      a number, the change to it in this unit.
  """

  condition: float
  source: float
  both: float
  column: int
  change_scale: float | None = None


def withheld(
  drops: Drops, conditions: Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Draws for each example what it must do without.

  Args:
    drops: Drops.
    conditions: (b,k). keys: (b,).

  Returns:
    (drop (b,), conditions with NaN where there is no source); one draw for both, so
    that the three shares are disjoint.
  """
  u = jax.vmap(jax.random.uniform)(keys)
  drop = u < drops.condition + drops.both
  hidden = (u >= drops.condition) & (u < drops.condition + drops.both + drops.source)
  in_pair = jnp.arange(conditions.shape[1]) >= drops.column
  return drop, jnp.where(hidden[:, None] & in_pair, jnp.nan, conditions)
