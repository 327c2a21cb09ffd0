"""Soundness of counterfactuals: three properties, each a figure with a 95 % interval.

Composition: a null intervention returns the source. Effectiveness: the requested change
is measured in the result. Reversibility: a change and its opposite return the source.
[Monteiro23] arXiv 2303.01274. Examples of one group (a patient) are averaged first,
because they are one observation. Where the truth is known, `against_truth` compares
with it, and measures minimality: what was not requested stays.
"""

from typing import Any

import numpy as np

from ldm_jax.evaluation import control, image_similarity, intervals
from ldm_jax.types import Array

HIGHEST_DB = 100.0  # of an exact return, whose ratio is infinite


def composition(
  source: Array,
  returned: Array,
  groups: Array | None = None,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """Mean absolute difference to the source after a null intervention.

  Args:
    source: volumes (n, ...).
    returned: the same volumes after one or more null interventions, (n, ...).
    groups: (n,) names, for instance patients; None makes each volume its own.
    num_resamples, seed: of the bootstrap.

  Returns:
    dict value, low, high, n (groups), in intensity units. low and high are None for
    fewer than two groups; the value is None for no volumes.

  Raises:
    ValueError: shapes that differ.
  """
  distances = _distances(source, returned)
  return intervals.mean_figure(distances, groups, num_resamples, seed)


def composition_psnr(
  source: Array,
  returned: Array,
  groups: Array | None = None,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """As `composition`, in dB: the mean peak signal-to-noise ratio, 100 at most."""
  found = np.zeros(len(_distances(source, returned)))
  if len(found):
    rows = lambda x: np.asarray(x).reshape(len(found), 1, -1)
    found = np.minimum(image_similarity.psnr(rows(source), rows(returned)), HIGHEST_DB)
  return intervals.mean_figure(found, groups, num_resamples, seed)


def reversibility(
  source: Array,
  there_and_back: Array,
  groups: Array | None = None,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """Mean absolute difference to the source after a change and its opposite.

  Arguments, result and errors as `composition`.
  """
  return composition(source, there_and_back, groups, num_resamples, seed)


def effectiveness(
  requested_change: Array,
  measured_change: Array,
  groups: Array | None = None,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Compares the requested change of one attribute with the measured one.

  Both are differences between counterfactual and source, (n,) in the attribute's unit,
  so that a constant error of the measuring network cancels. Pairs with NaN are left
  out.

  Returns:
    dict of figures (value, low, high, n): `error`, mean |measured - requested|;
    `gain`, slope of measured over requested through the origin (1 is perfect);
    `pearson_r`, over the groups' means, None where a side is constant or n < 3;
    `direction`, share of the non-zero requests whose change has the requested sign.

  Raises:
    ValueError: lengths that differ.
  """
  requested = np.asarray(requested_change, np.float64)
  measured = np.asarray(measured_change, np.float64)
  if requested.shape != measured.shape or requested.ndim != 1:
    raise ValueError(
      f'Expected two vectors of one length, got requested changes {requested.shape} '
      f'and measured changes {measured.shape}; measure source and counterfactual.'
    )
  complete = np.isfinite(requested) & np.isfinite(measured)
  groups = None if groups is None else np.asarray(groups)[complete]
  requested, measured = requested[complete], measured[complete]
  asked = requested != 0
  right = np.sign(requested) == np.sign(measured)
  # A group whose scans disagree counts as a fraction, not as success or failure.
  asked_groups = None if groups is None else groups[asked]
  by_group = intervals.group_means(right[asked], asked_groups)
  low, high = intervals.proportion_interval(by_group.sum(), len(by_group))
  share = float(by_group.mean()) if len(by_group) else None
  errors = np.abs(measured - requested)
  return {
    'error': intervals.mean_figure(errors, groups, num_resamples, seed),
    'gain': _gain(requested, measured, groups, num_resamples, seed),
    'pearson_r': _correlation(requested, measured, groups),
    'direction': {'value': share, 'low': low, 'high': high, 'n': len(by_group)},
  }


def _distances(a, b):
  a, b = np.asarray(a), np.asarray(b)
  if a.shape != b.shape or a.ndim < 1:
    raise ValueError(
      f'Expected two sets of volumes of one shape, got {a.shape} and {b.shape}; '
      'compare every volume with its own counterfactual, in the same order.'
    )
  difference = np.abs(a.astype(np.float64) - b)
  return difference.reshape(len(a), -1).mean(1) if len(a) else np.zeros(0)


def _correlation(requested, measured, groups):
  sides = [intervals.group_means(values, groups) for values in (requested, measured)]
  found = control.agreement(*sides)
  keys = {'value': 'pearson_r', 'low': 'pearson_r_low', 'high': 'pearson_r_high'}
  return {**{key: found[name] for key, name in keys.items()}, 'n': found['n']}


def _gain(requested, measured, groups, num_resamples, seed):
  """Slope through the origin; the bootstrap resamples groups."""
  if not np.any(requested):
    return {'value': None, 'low': None, 'high': None, 'n': 0}
  members = intervals.grouped_indices(len(requested), groups)
  product = np.array([(requested[m] * measured[m]).sum() for m in members])
  square = np.array([(requested[m] ** 2).sum() for m in members])
  return intervals.ratio_figure(product, square, num_resamples, seed)
