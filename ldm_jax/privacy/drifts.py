"""Private quantities from which a drift is chosen: latent means, losses over a grid.

Each is one Gaussian release by `release.private_mean`; choosing a drift from it is
post-processing. All parts are divided by one public scale, which does not depend on any
private patient, so that the same clip norm suits any latents and losses.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.privacy import release
from ldm_jax.types import Array

SHARE = 0.9  # share of the public patients whose norm is below the public scale


def public_scale(parts: Array) -> float:
  """The SHARE quantile of the norms of the public patients' parts (n, m); positive.

  Raises:
    ValueError: the quantile is zero or not finite.
  """
  scale = float(np.quantile(np.linalg.norm(np.asarray(parts, float), axis=1), SHARE))
  if not (np.isfinite(scale) and scale > 0):
    raise ValueError(
      'expected a positive scale from the public patients for the private drift '
      f'search, got {scale}; set adapt.drift.search and adapt.drift.value yourself.'
    )
  return scale


def loss_parts(losses: Array, grid: Sequence[float]) -> np.ndarray:
  """Losses (n, g) over a grid that contains 0 -> (n, g - 1) differences from drift 0.

  A patient's row depends on this patient's losses alone. The column of drift 0 is left
  out: it would be zero for everybody and needs neither noise nor budget.
  """
  losses, at_zero = np.asarray(losses, float), list(grid).index(0)
  return np.delete(losses - losses[:, at_zero : at_zero + 1], at_zero, axis=1)


def private_parts(
  parts: Array,
  scale: float,
  clip_norm: float,
  noise_multiplier: float,
  num_patients: int,
  key: jax.Array,
  name: str,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Mean over patients of one row each, with Gaussian noise, in the units of the rows.

  Sensitivity. Patient i contributes v_i = parts_i / scale, where the scale is public.
  v_i is clipped to L2 norm clip_norm as ONE vector over all channels, or over the whole
  grid. Adding or removing patient j adds or removes clip(v_j) and changes no other
  term, so the sum changes by at most clip_norm in L2: one Gaussian release of noise
  multiplier sigma, for any number of coordinates (`release.private_mean`). Multiplying
  the result by the public scale is post-processing, and so is everything computed from
  it: the minimum over the grid, or a drift in closed form.

  Args:
    parts: (n, m), see `loss_parts` and `release.latent_means`.
    scale: from `public_scale`.
    clip_norm, noise_multiplier, num_patients, key, name: as in `release.private_mean`.

  Returns:
    (mean, release): (m,) float64, and the dict for the ledger.
  """
  mean, made = release.private_mean(
    np.asarray(parts, float) / scale,
    clip_norm,
    noise_multiplier,
    num_patients,
    key,
    name=name,
  )
  return scale * np.asarray(mean, float), made


def least(differences: Array, grid: Sequence[float]) -> float:
  """The grid value with the least loss, given mean differences as from `loss_parts`.

  The difference at drift 0 is exactly zero, so the result is 0 where no other value has
  a negative (noisy) difference.
  """
  others = [value for value in grid if value != 0]
  best = int(np.argmin(differences))
  return float(others[best]) if differences[best] < 0 else 0.0
