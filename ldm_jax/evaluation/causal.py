"""Are counterfactuals sound? Four laws, each a figure with a 95 % interval.

Composition: no intervention returns the source. Effectiveness: the requested change
is measured. Reversibility: there and back returns the source. Minimality: what was not
asked for stays. [Monteiro23] arXiv 2303.01274. Examples of one group (a patient) are
averaged first, since they are one observation. Where the truth is known:
`against_truth.py`.
"""

import numpy as np

from ldm_jax.evaluation import control, image_similarity, intervals

HIGHEST_DB = 100.0  # of an exact return, whose ratio is infinite


def composition(source, returned, groups=None, num_resamples=1000, seed=0):
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
  return mean_figure(distances, groups, num_resamples, seed)


def composition_psnr(source, returned, groups=None, num_resamples=1000, seed=0):
  """As `composition`, in dB: the mean peak signal-to-noise ratio, 100 at most."""
  found = np.zeros(len(_distances(source, returned)))
  if len(found):
    pairs = (np.asarray(x).reshape(len(found), 1, -1) for x in (source, returned))
    found = np.minimum(image_similarity.psnr(*pairs), HIGHEST_DB)
  return mean_figure(found, groups, num_resamples, seed)


def reversibility(source, there_and_back, groups=None, num_resamples=1000, seed=0):
  """Mean absolute difference to the source after a change and its opposite.

  Arguments, result and errors as `composition`.
  """
  return composition(source, there_and_back, groups, num_resamples, seed)


def effectiveness(
  requested_change, measured_change, groups=None, num_resamples=1000, seed=0
):
  """Compares the requested change of one attribute with the measured one.

  Both are differences between counterfactual and source, (n,) in the attribute's unit;
  a constant error of the measuring network cancels in them. Pairs with NaN are left
  out.

  Returns:
    dict of figures (value, low, high, n): `error`, mean |measured - requested|;
    `gain`, slope of measured over requested through the origin (1 is perfect);
    `pearson_r`, over the groups' means, None where a side is constant or n < 3;
    `direction`, share of the non-zero requests that moved the right way.

  Raises:
    ValueError: lengths that differ.
  """
  requested = np.asarray(requested_change, np.float64)
  measured = np.asarray(measured_change, np.float64)
  if requested.shape != measured.shape or requested.ndim != 1:
    raise ValueError(
      f'Requested changes {requested.shape} and measured changes {measured.shape} '
      'came; two vectors of one length are required: measure source and counterfactual.'
    )
  complete = np.isfinite(requested) & np.isfinite(measured)
  groups = None if groups is None else np.asarray(groups)[complete]
  requested, measured = requested[complete], measured[complete]
  asked = requested != 0
  right = np.sign(requested) == np.sign(measured)
  # One Bernoulli value per group: half right is not right.
  asked_groups = None if groups is None else groups[asked]
  by_group = group_means(right[asked], asked_groups)
  low, high = intervals.proportion_interval(by_group.sum(), len(by_group))
  share = float(by_group.mean()) if len(by_group) else None
  return {
    'error': mean_figure(np.abs(measured - requested), groups, num_resamples, seed),
    'gain': _gain(requested, measured, groups, num_resamples, seed),
    'pearson_r': _correlation(requested, measured, groups),
    'direction': {'value': share, 'low': low, 'high': high, 'n': len(by_group)},
  }


def minimality(
  unrequested_change, scale, names=None, groups=None, num_resamples=1000, seed=0
):
  """Mean absolute change of what was not asked for, in units of `scale`.

  Args:
    unrequested_change: (n, m) differences between counterfactual and source of m
      measured attributes; NaN where an attribute was requested or not measurable.
    scale: (m,) positive, for instance the attributes' ranges.
    names: (m,) names; adds one figure per attribute under 'by_attribute'.

  Returns:
    dict value, low, high, n as `composition`, over each example's mean.

  Raises:
    ValueError: shapes that do not fit, scales that are not positive.
  """
  change = np.asarray(unrequested_change, np.float64)
  scale = np.asarray(scale, np.float64)
  if change.ndim != 2 or scale.shape != change.shape[1:] or not np.all(scale > 0):
    raise ValueError(
      f'Changes {change.shape} with scales {scale.tolist()} came; required are (n, m) '
      'changes and m positive scales.'
    )
  change = np.abs(change) / scale
  known = np.isfinite(change)
  some = known.any(1)
  means = np.where(known, change, 0).sum(1)[some] / known.sum(1)[some]
  result = mean_figure(means, _rows(groups, some), num_resamples, seed)
  if names is not None:
    result['by_attribute'] = {
      name: mean_figure(c[k], _rows(groups, k), num_resamples, seed)
      for name, c, k in zip(names, change.T, known.T, strict=True)
    }
  return result


def _distances(a, b):
  a, b = np.asarray(a), np.asarray(b)
  if a.shape != b.shape or a.ndim < 1:
    raise ValueError(
      f'Volumes {a.shape} and {b.shape} came; compare every volume with its own '
      'counterfactual, in the same order and shape.'
    )
  difference = np.abs(a.astype(np.float64) - b)
  return difference.reshape(len(a), -1).mean(1) if len(a) else np.zeros(0)


def _rows(groups, chosen):
  return None if groups is None else np.asarray(groups)[chosen]


def group_means(values, groups):
  """Means of (n,) values per group: -> (g,) float64, empty for no values."""
  values = np.asarray(values, np.float64)
  if not len(values):
    return values
  members = intervals.grouped_indices(len(values), groups)
  return np.array([values[m].mean() for m in members])


def mean_figure(values, groups, num_resamples, seed):
  """Mean over groups of (n,) values: dict value, low, high, n (groups)."""
  means = group_means(values, groups)
  result = {'value': None, 'low': None, 'high': None, 'n': len(means)}
  if len(means):
    result['value'] = float(means.mean())
  if len(means) > 1:
    result['low'], result['high'] = intervals.bootstrap_mean_interval(
      means, num_resamples, seed
    )
  return result


def _correlation(requested, measured, groups):
  sides = [group_means(values, groups) for values in (requested, measured)]
  found = control.agreement(*sides)
  keys = {'value': 'pearson_r', 'low': 'pearson_r_low', 'high': 'pearson_r_high'}
  return {**{key: found[name] for key, name in keys.items()}, 'n': found['n']}


def _gain(requested, measured, groups, num_resamples, seed):
  """Slope through the origin; the bootstrap resamples groups."""
  result = {'value': None, 'low': None, 'high': None, 'n': 0}
  if not np.any(requested):
    return result
  members = intervals.grouped_indices(len(requested), groups)
  product = np.array([(requested[m] * measured[m]).sum() for m in members])
  square = np.array([(requested[m] ** 2).sum() for m in members])
  result |= {'value': float(product.sum() / square.sum()), 'n': len(members)}
  if len(members) > 1:
    draws = intervals.resampled(len(members), num_resamples, seed)
    top, bottom = product[draws].sum(1), square[draws].sum(1)
    slopes = top[bottom > 0] / bottom[bottom > 0]
    result['low'], result['high'] = map(float, np.quantile(slopes, [0.025, 0.975]))
  return result
