"""Similarity of images: PSNR, SSIM, multi-scale SSIM; 2D (n,h,w) and 3D (n,d,h,w).

SSIM follows MONAI (valid windows, no padding, population moments), so figures can be
compared. Small grids and thin stacks are accepted: a window longer than an axis shrinks
to the longest odd length that fits, and in MS-SSIM an axis is halved only as long as
its window still fits; the result says which scales were used.

[Wang04] Wang et al., Image quality assessment, IEEE TIP 13, 2004.
[Wang03] Wang et al., Multiscale structural similarity, Asilomar 2003.
[Arvesen69] Arvesen, Jackknifing U-statistics, Ann. Math. Statist. 40, 1969.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ldm_jax.evaluation import intervals
from ldm_jax.types import Array, Shape

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Of more examples the pairs are drawn without a list of all.
LISTED = 4096


def psnr(x: Array, x_hat: Array, data_range: float = 1.0) -> np.ndarray:
  """Peak signal-to-noise ratio in dB: (n, ...), (n, ...) -> (n,) float64.

  Args:
    x: reference images.
    x_hat: images compared with them.
    data_range: largest minus smallest possible intensity.

  Equal images give inf. Raises ValueError for unequal shapes.
  """
  x, x_hat = _checked(x, x_hat)
  axes = tuple(range(1, x.ndim))
  mse = ((x - x_hat) ** 2).sum(axis=axes) / np.prod(x.shape[1:])
  with np.errstate(divide='ignore'):
    return 10 * np.log10(data_range**2 / mse)


def ssim(
  x: Array,
  x_hat: Array,
  window: str = 'gaussian',
  size: int = 11,
  sigma: float = 1.5,
  data_range: float = 1.0,
  k1: float = 0.01,
  k2: float = 0.03,
) -> np.ndarray:
  """Structural similarity: (n, *spatial) twice -> (n,) float64. [Wang04] Eq. 13

  Args:
    x: images, 2 or 3 spatial axes and no channel axis.
    x_hat: images compared with them.
    window: 'gaussian' or 'uniform'.
    size: window length in voxels, shrunk on axes shorter than that.
    sigma: standard deviation of the Gaussian window in voxels.
    data_range: largest minus smallest possible intensity.
    k1: constant of the luminance term.
    k2: constant of the contrast term.

  Raises ValueError for unequal shapes or an unknown window.
  """
  x, x_hat = _checked(x, x_hat)
  sizes = window_sizes(x.shape[1:], size)
  full, _ = _maps(x, x_hat, _kernels(window, sizes, sigma), data_range, k1, k2)
  return full


def ms_ssim(
  x: Array,
  x_hat: Array,
  weights: Sequence[float] = SCALE_WEIGHTS,
  window: str = 'gaussian',
  size: int = 11,
  sigma: float = 1.5,
  data_range: float = 1.0,
  k1: float = 0.01,
  k2: float = 0.03,
) -> dict[str, Any]:
  """Multi-scale structural similarity, adapted to the grid. [Wang03] Eq. 7

  Args as `ssim`; weights: exponent of each scale, finest first. When the grid holds
  fewer scales the first ones are used, rescaled to the same sum.

  Returns:
    dict values (n,) float64, scales (how many were used), scales_per_axis (number of
    resolutions of each axis), window (its length per axis).
  """
  x, x_hat = _checked(x, x_hat)
  sizes = window_sizes(x.shape[1:], size)
  per_axis = scales_per_axis(x.shape[1:], sizes, len(weights))
  num_scales = max(per_axis)
  exponents = np.asarray(weights[:num_scales], np.float64)
  exponents *= sum(weights) / exponents.sum()
  kernels = _kernels(window, sizes, sigma)
  value = np.ones(len(x))
  for scale, exponent in enumerate(exponents):
    full, contrast = _maps(x, x_hat, kernels, data_range, k1, k2)
    term = full if scale == num_scales - 1 else contrast
    value *= np.maximum(term, 0.0) ** exponent
    halved = [scale + 1 < count for count in per_axis]
    x, x_hat = _halve(x, halved), _halve(x_hat, halved)
  return {
    'values': value,
    'scales': num_scales,
    'scales_per_axis': per_axis,
    'window': sizes,
  }


def diversity(
  x: Array,
  num_pairs: int = 200,
  groups: Array | None = None,
  seed: int = 0,
  **settings: Any,
) -> dict[str, Any]:
  """Mean MS-SSIM over pairs of different examples: lower is more diverse.

  Args:
    x: (n, *spatial) images.
    num_pairs: pairs drawn without replacement (all of them when there are fewer).
    groups: (n,) patients; pairs within one patient are left out.
    seed: seed of the draw.
    **settings: of `ms_ssim`.

  Returns:
    dict value, low, high, n, num_pairs, scales, scales_per_axis. The interval is
    the delete-one-example jackknife of the U-statistic [Arvesen69], because pairs
    that share an example are not independent.

  Raises:
    ValueError: for fewer than two examples (or groups).
  """
  labels = np.arange(len(x)) if groups is None else np.asarray(groups)
  first, second = _pairs(labels, num_pairs, seed)
  if not len(first):
    raise ValueError(
      'Expected images of at least two different patients or samples, got '
      f'{len(x)} images of {len(np.unique(labels))}; draw more samples (sample.num).'
    )
  chunks = [slice(start, start + 32) for start in range(0, len(first), 32)]
  results = [ms_ssim(x[first[chunk]], x[second[chunk]], **settings) for chunk in chunks]
  scores = np.concatenate([result['values'] for result in results])
  value = float(scores.mean())
  low, high = _pair_interval(scores, first, second, value)
  return {
    'value': value,
    'low': low,
    'high': high,
    'n': len(x),
    'num_pairs': len(scores),
    'scales': results[0]['scales'],
    'scales_per_axis': list(results[0]['scales_per_axis']),
  }


def _pairs(labels, num_pairs, seed):
  """Numbers (p,), (p,) of different examples with unlike labels, p <= num_pairs."""
  generator = np.random.default_rng(seed)
  if len(labels) > LISTED and len(np.unique(labels)) > 1:
    found: set[tuple[int, int]] = set()
    while len(found) < num_pairs:
      i, j = sorted(generator.integers(0, len(labels), 2).tolist())
      if labels[i] != labels[j]:
        found.add((i, j))
    pairs = np.array(sorted(found))
    return pairs[:, 0], pairs[:, 1]
  first, second = np.triu_indices(len(labels), k=1)
  allowed = np.flatnonzero(labels[first] != labels[second])
  if allowed.size > num_pairs:
    chosen = generator.choice(allowed.size, num_pairs, replace=False)
    allowed = allowed[np.sort(chosen)]
  return first[allowed], second[allowed]


def window_sizes(shape: Shape, size: int) -> Shape:
  """Window length per axis: the size, or the longest odd length that fits."""
  return tuple(
    size if extent >= size else max(1, extent - (extent + 1) % 2) for extent in shape
  )


def scales_per_axis(shape: Shape, sizes: Shape, max_scales: int) -> Shape:
  """Number of resolutions of each axis: it is halved while its window fits."""
  counts = []
  for extent, size in zip(shape, sizes, strict=True):
    count = 1
    while count < max_scales and extent // 2 >= max(size, 2):
      extent //= 2
      count += 1
    counts.append(count)
  return tuple(counts)


def _maps(x, y, kernels, data_range, k1, k2):
  """Per-example means of SSIM and of its contrast-structure part."""
  c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
  mu_x, mu_y = _filtered(x, kernels), _filtered(y, kernels)
  var_x = _filtered(x * x, kernels) - mu_x**2
  var_y = _filtered(y * y, kernels) - mu_y**2
  covariance = _filtered(x * y, kernels) - mu_x * mu_y
  contrast = (2 * covariance + c2) / (var_x + var_y + c2)
  full = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1) * contrast
  axes = tuple(range(1, x.ndim))
  return full.mean(axis=axes), contrast.mean(axis=axes)


def _filtered(x, kernels):
  """Separable correlation on the voxels whose whole window lies inside."""
  for axis, kernel in enumerate(kernels, start=1):
    if len(kernel) == 1:
      continue
    half = len(kernel) // 2
    x = ndimage.correlate1d(x, kernel, axis=axis, mode='nearest')
    stop = x.shape[axis] - (len(kernel) - 1 - half)
    x = np.take(x, np.arange(half, stop), axis=axis)
  return x


def _kernels(window, sizes, sigma):
  if window == 'uniform':
    return [np.full(size, 1 / size) for size in sizes]
  if window != 'gaussian':
    raise ValueError(
      f"Expected the window 'gaussian' or 'uniform', got {window!r}; change the "
      'argument window.'
    )
  kernels = []
  for size in sizes:
    kernel = np.exp(-(((np.arange(size) - (size - 1) / 2) / sigma) ** 2) / 2)
    kernels.append(kernel / kernel.sum())
  return kernels


def _halve(x, halved):
  """Averages neighbouring voxels in pairs along the axes marked true."""
  for axis, do in enumerate(halved, start=1):
    if do:
      even = x.shape[axis] // 2 * 2
      first = np.take(x, np.arange(0, even, 2), axis=axis)
      x = (first + np.take(x, np.arange(1, even, 2), axis=axis)) / 2
  return x


def _pair_interval(scores, first, second, value):
  involved = np.unique(np.concatenate([first, second]))
  estimates = []
  for i in involved:
    rest = scores[(first != i) & (second != i)]
    if rest.size:
      estimates.append(rest.mean())
  if len(estimates) < 3:
    return None, None
  n, estimates = len(estimates), np.asarray(estimates)
  error = np.sqrt((n - 1) / n * ((estimates - estimates.mean()) ** 2).sum())
  low, high = value - intervals.Z_95 * error, value + intervals.Z_95 * error
  return float(max(0.0, low)), float(min(1.0, high))


def _checked(x, x_hat):
  x, x_hat = np.asarray(x, np.float64), np.asarray(x_hat, np.float64)
  if x.shape != x_hat.shape or x.ndim not in (3, 4) or len(x) == 0:
    raise ValueError(
      f'Expected two equal shapes (n,h,w) or (n,d,h,w), got {x.shape} and '
      f'{x_hat.shape}; drop the channel axis or crop to one grid.'
    )
  return x, x_hat
