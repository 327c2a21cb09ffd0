"""95 % intervals of the evaluation's figures: arrays in, (low, high) out.

Where groups (patients) are given, every interval resamples or counts groups: two
volumes of one patient are one observation. A *figure* is a dict value, low, high, n.

[Politis99] Politis, Romano, Wolf, Subsampling, 1999 (delete-half jackknife).
[Wilson27] Wilson, JASA 22, 1927. [Fisher21] Fisher, Metron 1, 1921.
[Newcombe06] Newcombe, Statist. Med. 25, 2006, method 5 (area under the ROC curve).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize

from ldm_jax.types import Array

Z_95 = 1.959963984540054


def grouped_indices(num_examples: int, groups: Array | None = None) -> list[np.ndarray]:
  """Indices of the examples of each group; None makes each example its own group.

  Raises:
    ValueError: groups that are not (n,), one name per example.
  """
  if groups is None:
    return [np.array([i]) for i in range(num_examples)]
  groups = np.asarray(groups)
  if groups.shape != (num_examples,):
    raise ValueError(
      f'Expected groups ({num_examples},), got the shape {groups.shape}; pass one '
      'group name (for instance the patient) per example.'
    )
  _, inverse = np.unique(groups, return_inverse=True)
  return [np.flatnonzero(inverse == g) for g in range(inverse.max() + 1)]


def group_means(values: Array, groups: Array | None) -> np.ndarray:
  """Means of (n,) values per group: -> (g,) float64, empty for no values."""
  values = np.asarray(values, np.float64)
  if not len(values):
    return values
  return np.array([values[m].mean() for m in grouped_indices(len(values), groups)])


def mean_figure(
  values: Array, groups: Array | None, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
  """Figure of the mean over groups of (n,) values; n counts groups.

  low and high are None for fewer than two groups, the value too for none.
  """
  means = group_means(values, groups)
  low, high = bootstrap_mean_interval(means, num_resamples, seed)
  value = float(means.mean()) if len(means) else None
  return {'value': value, 'low': low, 'high': high, 'n': len(means)}


def ratio_figure(
  top: np.ndarray, bottom: np.ndarray, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
  """Figure of sum(top) / sum(bottom) over groups (g,); the bootstrap draws groups.

  The value is None where the sum of bottom is not positive.
  """
  figure: dict[str, Any] = {'value': None, 'low': None, 'high': None, 'n': len(top)}
  if bottom.sum() <= 0:
    return figure
  figure['value'] = float(top.sum() / bottom.sum())
  if len(top) > 1:
    draws = resampled(len(top), num_resamples, seed)
    above, below = top[draws].sum(1), bottom[draws].sum(1)
    ratios = above[below > 0] / below[below > 0]
    figure['low'], figure['high'] = map(float, np.quantile(ratios, [0.025, 0.975]))
  return figure


def half_sample(rng: np.random.Generator, members: Sequence[np.ndarray]) -> np.ndarray:
  """Draws half of the groups without replacement: list of arrays -> indices."""
  size = max(1, (len(members) + 1) // 2)
  chosen = rng.choice(len(members), size=size, replace=False)
  return np.concatenate([members[g] for g in np.sort(chosen)])


def half_sampling_interval(
  value: float, replicates: Array, floor: float | None = None
) -> tuple[float, float]:
  """Interval around `value` from the same statistic on random halves: -> (low, high).

  To first order, the spread of a statistic over halves drawn without replacement equals
  its sampling spread at full size [Politis99]. Halves contain no duplicates, so
  distances between distributions are not inflated as in a bootstrap; the common bias of
  the halves is removed by centring.

  Args:
    value: of the statistic on all data.
    replicates: its values on the halves.
    floor: the statistic's least possible value, if any.
  """
  replicates = np.asarray(replicates, np.float64)
  deviations = replicates - replicates.mean()
  low, high = value + np.quantile(deviations, [0.025, 0.975])
  if floor is not None:
    low = max(low, floor)
  return float(low), float(max(high, low))


def bootstrap_mean_interval(
  values: Array, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
  """Percentile bootstrap of a mean: (n,) -> (low, high); (None, None) for n < 2."""
  values = np.asarray(values, np.float64)
  if len(values) < 2:
    return None, None
  draws = resampled(len(values), num_resamples, seed)
  low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
  return float(low), float(high)


def resampled(num: int, num_resamples: int, seed: int) -> np.ndarray:
  """Draws with replacement: -> indices (num_resamples, num)."""
  return np.random.default_rng(seed).integers(0, num, size=(num_resamples, num))


def proportion_interval(successes: float, trials: int) -> tuple[float, float]:
  """Interval of a proportion: counts -> (low, high) in [0, 1]. [Wilson27]"""
  if trials == 0:
    return 0.0, 1.0
  p, z2 = successes / trials, Z_95**2
  centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
  half = Z_95 * np.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
  half /= 1 + z2 / trials
  return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def correlation_interval(r: float, num_pairs: int) -> tuple[float, float]:
  """Interval of a Pearson correlation: r, n -> (low, high). [Fisher21]

  Below four pairs the interval is (-1, 1).
  """
  if num_pairs < 4:
    return -1.0, 1.0
  centre = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
  half = Z_95 / np.sqrt(num_pairs - 3)
  return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def auc_interval(
  auc: float, num_positive: int, num_negative: int
) -> tuple[float, float]:
  """Interval of an area under the ROC curve: -> (low, high). [Newcombe06]

  Unlike DeLong's, its width is not zero when the groups are completely separated.
  """
  extra = (num_positive + num_negative) / 2 - 1

  def excess(theta):
    spread = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    variance = theta * (1 - theta) * spread / (num_positive * num_negative)
    return (auc - theta) ** 2 - Z_95**2 * variance

  # An estimate of exactly 0 or 1 would be a root of the excess: move it inside.
  inside = min(max(auc, 1e-9), 1 - 1e-9)
  low = 0.0 if auc <= 0 else optimize.brentq(excess, 0.0, inside)
  high = 1.0 if auc >= 1 else optimize.brentq(excess, inside, 1.0)
  return float(low), float(high)
