"""Counterfactuals compared with the true ones of phantoms: volumes (n, ...).

The truth is rendered by `synthesis.true_counterfactuals`. Every figure has a 95 %
bootstrap interval over groups (patients).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.evaluation import intervals
from ldm_jax.types import Array

# Smaller differences, as a share of the intensity range, are taken for rounding.
UNCHANGED = 1e-3


def error_to_truth(
  source: Array,
  counterfactual: Array,
  truth: Array,
  groups: Array | None = None,
  num_resamples: int = 1000,
  seed: int = 0,
  baselines: Mapping[str, Array] | None = None,
) -> dict[str, dict[str, Any]]:
  """Errors of counterfactuals, of the unchanged source and of baseline editors.

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
    changes nothing. For every baseline, `<name>`, its error, and `reduction_to_<name>`,
    the reduction relative to the baseline's error.

  Raises:
    ValueError: shapes that differ.
  """
  baselines = baselines or {}
  source, changed, truth, *others = _checked(
    source, counterfactual, truth, *baselines.values()
  )
  moved = np.abs(truth - source) > UNCHANGED
  error, unchanged = np.abs(changed - truth), np.abs(source - truth)
  known = moved.any(1)
  within = (error * moved).sum(1)[known] / moved.sum(1)[known]
  some = _rows(groups, known)
  error, unchanged = error.mean(1), unchanged.mean(1)
  options = num_resamples, seed
  figures = {}
  for name, other in zip(baselines, others, strict=True):
    other = np.abs(other - truth).mean(1)
    figures[name] = intervals.mean_figure(other, groups, *options)
    reduction = _complement(_ratio(error, other, groups, *options))
    figures[f'reduction_to_{name}'] = reduction
  return {
    'error': intervals.mean_figure(error, groups, *options),
    'error_within': intervals.mean_figure(within, some, *options),
    'unchanged': intervals.mean_figure(unchanged, groups, *options),
    'reduction': _complement(_ratio(error, unchanged, groups, *options)),
    **figures,
  }


def change_outside(
  source: Array,
  counterfactual: Array,
  truth: Array,
  groups: Array | None = None,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Minimality where the truth is known: change of voxels that should not change.

  Arguments and errors as `error_to_truth`.

  Returns:
    dict of figures: `change`, mean |counterfactual - source| over the voxels that the
    truth does not change; `share`, the part of all change that is there (0 perfect,
    None where nothing changed).
  """
  source, changed, truth = _checked(source, counterfactual, truth)
  still = np.abs(truth - source) <= UNCHANGED
  change = np.abs(changed - source)
  known = still.any(1)
  outside = (change * still).sum(1)
  mean = outside[known] / still.sum(1)[known]
  options = num_resamples, seed
  return {
    'change': intervals.mean_figure(mean, _rows(groups, known), *options),
    'share': _ratio(outside, change.sum(1), groups, *options),
  }


def _checked(*volumes):
  arrays = [np.asarray(v, np.float64) for v in volumes]
  if len({array.shape for array in arrays}) > 1 or arrays[0].ndim < 2:
    raise ValueError(
      'Expected source, counterfactual and truth of one shape (n, ...), got '
      f'{[array.shape for array in arrays]}; give each volume its own counterfactual '
      'and truth.'
    )
  return [array.reshape(len(array), -1) for array in arrays]


def _rows(groups, chosen):
  return None if groups is None else np.asarray(groups)[chosen]


def _ratio(top, bottom, groups, num_resamples, seed):
  """Ratio of the sums over groups of two columns (n,), each averaged per group."""
  top, bottom = (intervals.group_means(values, groups) for values in (top, bottom))
  return intervals.ratio_figure(top, bottom, num_resamples, seed)


def _complement(figure):
  values = {
    key: None if figure[other] is None else 1 - figure[other]
    for key, other in (('value', 'value'), ('low', 'high'), ('high', 'low'))
  }
  return {**values, 'n': figure['n']}
