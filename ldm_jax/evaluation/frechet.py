"""Distances between two sets of feature vectors, with 95 % intervals.

Features are (n, f) rows of one fixed network; everything is float64. Both distances
depend on that network and on the sample size, so a figure can only be judged together
with the network's name and hash, and with the distance between real sets of that size.

[Heusel17] Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017.
[Binkowski18] Binkowski et al., Demystifying MMD GANs, ICLR 2018.
[Gretton12] Gretton et al., A kernel two-sample test, JMLR 13, 2012.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.evaluation import intervals
from ldm_jax.types import Array

# Share of the spread of real features beyond which a distance of real halves is noise.
HARDLY_TOLD = 0.5
# Rows of a matrix of products that are in memory at a time.
AT_ONCE = 4096


def frechet_distance(
  features_a: Array,
  features_b: Array,
  groups_a: Array | None = None,
  groups_b: Array | None = None,
  num_resamples: int = 100,
  seed: int = 0,
) -> dict[str, Any]:
  """Frechet distance of the Gaussians fitted to two sets, squared. [Heusel17] Eq. 6

  Args:
    features_a: (n, f) features, by convention of the real volumes.
    features_b: (m, f) features, by convention of the synthetic volumes.
    groups_a: (n,) patients, whose rows are resampled together; None: each row alone.
    groups_b: (m,) likewise.
    num_resamples: random halves for the interval; 0 leaves it out.
    seed: seed of the halves.

  Returns:
    dict value, low, high, n_real, n_synthetic, num_features. The value carries the
    estimator's positive bias (about f / n), which the interval does not remove.

  Raises:
    ValueError: for fewer than two rows, unequal widths or non-finite features.
  """
  a, b = _checked(features_a, features_b)
  return _with_interval(
    frechet_value, a, b, groups_a, groups_b, num_resamples, seed, floor=0.0
  )


def frechet_value(a: np.ndarray, b: np.ndarray) -> float:
  """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2): (n, f), (m, f) -> float.

  With S = R'R for both covariances, tr (S_a S_b)^1/2 is the sum of the singular
  values of R_a R_b'. No matrix square root is needed, so precision is not lost for
  rank-deficient covariances (fewer volumes than features).
  """
  root_a, root_b = _covariance_root(a), _covariance_root(b)
  cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
  shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
  spread = (root_a**2).sum() + (root_b**2).sum() - 2 * cross
  return float(max(0.0, shift + spread))


def kernel_distance(
  features_a: Array,
  features_b: Array,
  groups_a: Array | None = None,
  groups_b: Array | None = None,
  num_resamples: int = 100,
  seed: int = 0,
) -> dict[str, Any]:
  """Kernel distance (KID), unbiased, kernel (x.y / f + 1)^3. [Binkowski18] Sec. 4

  Arguments, errors and result as `frechet_distance`; the value may be negative.
  """
  a, b = _checked(features_a, features_b)
  return _with_interval(
    kernel_value, a, b, groups_a, groups_b, num_resamples, seed, floor=None
  )


def kernel_value(a: np.ndarray, b: np.ndarray, kernel: str = 'cubic') -> float:
  """Unbiased squared MMD: (n, f), (m, f) -> float. [Gretton12] Lemma 6

  Args:
    a, b: rows of the two sets.
    kernel: 'cubic', (x.y / f + 1)^3, or 'linear', x.y (MONAI's MMDMetric).
  """
  product = _cubic if kernel == 'cubic' else _linear
  means = []
  for x in (a, b):
    total, diagonal = _sums(product, x, x)
    means.append((total - diagonal) / (len(x) * (len(x) - 1)))
  return float(sum(means) - 2 * _sums(product, a, b)[0] / (len(a) * len(b)))


def real_baseline(
  features: Array, groups: Array | None = None, num_splits: int = 20, seed: int = 0
) -> dict[str, Any]:
  """Distances of real from real: (n, f) -> dict, over random halves by group.

  Returns:
    dict frechet, kid (each value, low, high: mean and 95 % range over the splits),
    n (rows), n_half, num_splits. A perfect generator would have these distances with
    half as many volumes in each set.

  Raises:
    ValueError: for fewer than four groups.
  """
  features = np.asarray(features, np.float64)
  members = intervals.grouped_indices(len(features), groups)
  if len(members) < 4:
    raise ValueError(
      'Expected at least 4 patients for the baseline of real against real volumes, '
      f'got {len(members)}; enlarge the held-out cohort (data.private.fractions).'
    )
  rng = np.random.default_rng(seed)
  distances: dict[str, list[float]] = {'frechet': [], 'kid': []}
  for _ in range(num_splits):
    order = rng.permutation(len(members))
    half = len(members) // 2
    a = features[np.concatenate([members[g] for g in order[:half]])]
    b = features[np.concatenate([members[g] for g in order[half : 2 * half]])]
    distances['frechet'].append(frechet_value(a, b))
    distances['kid'].append(kernel_value(a, b))
  result = {}
  for name, values in distances.items():
    low, high = np.quantile(values, [0.025, 0.975])
    value = float(np.mean(values))
    result[name] = {'value': value, 'low': float(low), 'high': float(high)}
  return {**result, 'n': len(features), 'n_half': len(a), 'num_splits': num_splits}


def says_nothing(
  distance: float, features: Array, baseline: Mapping[str, Any] | None
) -> str | None:
  """Why a Frechet distance is no evidence of likeness, or None.

  A generator that always draws the mean real volume has the distance tr(S), S the
  covariance of the real features. Where two halves of the real volumes are half as far
  from each other as that, so few volumes hardly tell such a generator from a good one:
  a distance no larger than theirs is then no sign of quality. A larger one still shows
  that real and synthetic volumes differ.

  Args:
    distance: of the synthetic from the real features.
    features: (n, f) of the real volumes.
    baseline: of `real_baseline`; None where there are too few patients for it.
  """
  if baseline is None:
    return 'Too few real patients to tell how far real volumes are from each other.'
  halves = baseline['frechet']['value']
  spread = float(np.asarray(features, np.float64).var(axis=0, ddof=1).sum())
  if distance > halves or halves < HARDLY_TOLD * spread:
    return None
  return (
    f'Two halves of the {len(features)} real volumes are {halves:.3g} apart, and a '
    f'generator that always draws their mean would be at {spread:.3g}: with so few, a '
    'distance this small does not show that samples are good.'
  )


def _with_interval(statistic, a, b, groups_a, groups_b, num_resamples, seed, floor):
  members_a = intervals.grouped_indices(len(a), groups_a)
  members_b = intervals.grouped_indices(len(b), groups_b)
  value = statistic(a, b)
  low, high = None, None
  if num_resamples and min(len(members_a), len(members_b)) >= 4:
    rng = np.random.default_rng(seed)
    replicates = [
      statistic(
        a[intervals.half_sample(rng, members_a)],
        b[intervals.half_sample(rng, members_b)],
      )
      for _ in range(num_resamples)
    ]
    low, high = intervals.half_sampling_interval(value, replicates, floor)
  return {
    'value': value,
    'low': low,
    'high': high,
    'n_real': len(a),
    'n_synthetic': len(b),
    'num_features': a.shape[1],
  }


def _covariance_root(x):
  """R (min(n, f), f) with R'R the unbiased covariance of the rows of x."""
  return np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode='r')


def _sums(product, a, b):
  """(sum, trace) of the matrix of products, of which AT_ONCE rows are in memory."""
  total = diagonal = 0.0
  for start in range(0, len(a), AT_ONCE):
    block = product(a[start : start + AT_ONCE], b)
    total += block.sum()
    diagonal += np.trace(block, start)
  return total, diagonal


def _linear(a, b):
  return a @ b.T


def _cubic(a, b):
  return (a @ b.T / a.shape[1] + 1.0) ** 3


def _checked(features_a, features_b):
  a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
  if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      f'Expected features (n, f) and (m, f) of one width, got {a.shape} and '
      f'{b.shape}; use one feature network for both sets.'
    )
  if min(len(a), len(b)) < 2:
    raise ValueError(
      f'Expected at least 2 rows in each set, got {len(a)} and {len(b)}; draw more '
      'samples (sample.num).'
    )
  for name, x in (('first', a), ('second', b)):
    if not np.isfinite(x).all():
      raise ValueError(
        f'Expected finite features, got {int((~np.isfinite(x)).sum())} non-finite '
        f'values in the {name} set; check the volumes they come from.'
      )
  return a, b
