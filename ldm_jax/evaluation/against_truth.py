"""Counterfactuals against the true ones, which phantoms know: (n, ...) volumes.

Every figure has a 95 % bootstrap interval over groups (patients).
"""

import numpy as np

from ldm_jax.evaluation import causal, intervals

# Changes below this share of the intensity range are rounding, not change.
UNCHANGED = 1e-3


def error_to_truth(
  source,
  counterfactual,
  truth,
  groups=None,
  num_resamples=1000,
  seed=0,
  baselines=None,
):
  """How near counterfactuals come to the true ones, and how near the source was.

  Args:
    source, counterfactual, truth: volumes (n, ...) in [0, 1], in one order.
    groups: (n,) names, for instance patients; None makes each volume its own.
    num_resamples, seed: of the bootstrap.
    baselines: name -> volumes (n, ...) of other editors for the same changes.

  Returns:
    dict of figures (value, low, high, n): `error`, mean |counterfactual - truth|;
    `error_within`, the same where the truth differs from the source; `unchanged`, mean
    |source - truth|, the error of doing nothing; `reduction`, 1 - error / unchanged (1
    perfect, 0 no better than doing nothing, negative worse), None where the truth
    changes nothing. Of every baseline `<name>`, its error, and `reduction_to_<name>`,
    the reduction of the error from the baseline's.

  Raises:
    ValueError: shapes that differ.
  """
  names = list(baselines or {})
  others = [baselines[name] for name in names]
  source, changed, truth, *others = _checked(source, counterfactual, truth, *others)
  moved = np.abs(truth - source) > UNCHANGED
  error, unchanged = np.abs(changed - truth), np.abs(source - truth)
  known = moved.any(1)
  within = (error * moved).sum(1)[known] / moved.sum(1)[known]
  some = _rows(groups, known)
  error, unchanged = error.mean(1), unchanged.mean(1)
  options = num_resamples, seed
  figures = {}
  for name, other in zip(names, others, strict=True):
    other = np.abs(other - truth).mean(1)
    figures[name] = causal.mean_figure(other, groups, *options)
    reduction = _complement(_ratio(error, other, groups, *options))
    figures[f'reduction_to_{name}'] = reduction
  return {
    'error': causal.mean_figure(error, groups, *options),
    'error_within': causal.mean_figure(within, some, *options),
    'unchanged': causal.mean_figure(unchanged, groups, *options),
    'reduction': _complement(_ratio(error, unchanged, groups, *options)),
    **figures,
  }


def change_outside(
  source, counterfactual, truth, groups=None, num_resamples=1000, seed=0
):
  """Minimality where the truth is known: what moved although the truth stays.

  Arguments and errors as `error_to_truth`.

  Returns:
    dict of figures: `change`, mean |counterfactual - source| over the voxels that the
    truth leaves alone; `share`, the part of all change that lies there (0 perfect, None
    where nothing changed).
  """
  source, changed, truth = _checked(source, counterfactual, truth)
  still = np.abs(truth - source) <= UNCHANGED
  change = np.abs(changed - source)
  known = still.any(1)
  outside = (change * still).sum(1)
  mean = outside[known] / still.sum(1)[known]
  options = num_resamples, seed
  return {
    'change': causal.mean_figure(mean, _rows(groups, known), *options),
    'share': _ratio(outside, change.sum(1), groups, *options),
  }


def _checked(*volumes):
  arrays = [np.asarray(v, np.float64) for v in volumes]
  if len({array.shape for array in arrays}) > 1 or arrays[0].ndim < 2:
    raise ValueError(
      f'Source, counterfactual and truth have the shapes '
      f'{[array.shape for array in arrays]}; required are volumes (n, ...) of one '
      'shape, each with its own counterfactual and truth.'
    )
  return [array.reshape(len(array), -1) for array in arrays]


def _rows(groups, chosen):
  return None if groups is None else np.asarray(groups)[chosen]


def _ratio(top, bottom, groups, num_resamples, seed):
  """Ratio of two sums over groups; the bootstrap draws groups."""
  top, bottom = (causal.group_means(v, groups) for v in (top, bottom))
  figure = {'value': None, 'low': None, 'high': None, 'n': len(top)}
  if bottom.sum() <= 0:
    return figure
  figure['value'] = float(top.sum() / bottom.sum())
  if len(top) > 1:
    members = intervals.resampled(len(top), num_resamples, seed)
    above, below = top[members].sum(1), bottom[members].sum(1)
    ratios = above[below > 0] / below[below > 0]
    figure['low'], figure['high'] = map(float, np.quantile(ratios, [0.025, 0.975]))
  return figure


def _complement(figure):
  values = {
    key: None if figure[other] is None else 1 - figure[other]
    for key, other in (('value', 'value'), ('low', 'high'), ('high', 'low'))
  }
  return {**values, 'n': figure['n']}
