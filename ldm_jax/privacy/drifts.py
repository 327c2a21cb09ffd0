"""Private numbers from which a drift is chosen: latent means, losses over a grid.

Both are one Gaussian release of `release.private_mean`; the choice that follows from
them is post-processing. The public scale makes one clip norm fit any latents and
losses: it divides all parts alike and no private patient enters it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.privacy import release
from ldm_jax.types import Array

SHARE = 0.9  # of the public patients that stay below the public scale


def public_scale(parts: Array) -> float:
  """The norm that SHARE of the public patients' parts (n, m) stay below; positive.

  Raises:
    ValueError: parts that all vanish, which give no scale.
  """
  scale = float(np.quantile(np.linalg.norm(np.asarray(parts, float), axis=1), SHARE))
  if not (np.isfinite(scale) and scale > 0):
    raise ValueError(
      'the public patients give no scale for the private search for a drift (all '
      'their parts are zero); set adapt.drift.search and adapt.drift.value yourself.'
    )
  return scale


def loss_parts(losses: Array, grid: Sequence[float]) -> np.ndarray:
  """Losses (n, g) over a grid with 0 in it -> (n, g - 1) less the loss of no drift.

  A patient's part is a public function of this patient's losses alone. The column of no
  drift is zero for everybody and needs neither noise nor budget.
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
  """The mean over patients of a part each, with Gaussian noise, in the parts' units.

  Sensitivity. Patient i enters by v_i = parts_i / scale, where the scale is public; v_i
  is clipped to L2 norm C = clip_norm as ONE vector over all channels, or over the whole
  grid. Adding or removing patient j adds or removes clip(v_j) and changes no other
  term, so the sum moves by at most C in L2: one Gaussian release of noise multiplier
  sigma, however many coordinates there are (`release.private_mean`). The product with
  the public scale afterwards is post-processing, and so is what is made of the result:
  an argmin over the grid, a drift in closed form.

  Args:
    parts: (n, m), see `loss_parts` and `release.latent_means`.
    scale: of `public_scale`.
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
  """The value of the grid with the least loss, given differences as `loss_parts`.

  The loss of no drift is exactly zero here: where noise or patients see no gain, the
  answer is no drift.
  """
  others = [value for value in grid if value != 0]
  best = int(np.argmin(differences))
  return float(others[best]) if differences[best] < 0 else 0.0
