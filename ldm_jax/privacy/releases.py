"""Private releases besides training: means and histograms over patients.

One release uses every patient once (no sampling) and is recorded in the ledger like a
training run: record `planned` first, then compute. All releases are one sum of
per-patient vectors clipped to an L2 norm, so only `private_mean` adds noise. What the
other functions compute before it depends on one patient's data at a time by a public
function; what they compute after it is post-processing. `privacy/marginals.py` builds
the prior of the attributes on them.

[Wang20] Wang et al., Locally Differentially Private Frequency Estimation with
Consistency, NDSS 2020 (norm-sub: the nearest valid histogram).
[Duchi08] Duchi et al., Efficient Projections onto the l1-Ball, ICML 2008, Fig. 1.

Private quantities from which a drift is chosen: latent means, losses over a grid.

Each is one Gaussian release by `releases.private_mean`; choosing a drift from it is
post-processing. All parts are divided by one public scale, which does not depend on any
private patient, so that the same clip norm suits any latents and losses.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import accounting, checks, discrete_gaussian, finite_precision
from ldm_jax.types import Array

SHARE_BELOW_SCALE = (
  0.9  # share of the public patients whose norm is below the public scale
)


def private_mean(
  values: Array,
  clip_norm: float,
  noise_multiplier: float,
  num_patients: int,
  key: jax.Array,
  *,
  name: str = 'private mean',
  centre: Array | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Releases the mean over patients of one vector each, with discrete Gaussian noise.

  Sensitivity. Let f = sum_i clip(v_i - centre), where clip scales its argument to L2
  norm at most clip_norm. Adding or removing patient j adds or removes the one term
  clip(v_j - centre); no other term depends on patient j, and neither do the centre and
  the divisor. Each term is rounded towards zero to a public grid, so f changes by at
  most clip_norm in L2, rounding included, and with exact discrete Gaussian noise of
  deviation sigma clip_norm it is one Gaussian release of noise multiplier sigma
  (`discrete_gaussian`).
  Dividing by the public number of patients and adding the public centre is
  post-processing. (Dividing by the number of rows would leak it.) A row that is not
  finite counts as zero after centring, which is within the bound. Sampling probability
  1, one step.

  Args:
    values: (n, m), one row per patient: several volumes of a patient are first reduced
      to one row, for instance by their mean.
    clip_norm: > 0, from public data or constants.
    noise_multiplier: sigma > 0.
    num_patients: public number of patients N, the divisor.
    key: a secret key of this release alone (`secret_key.new_noise_key`); two releases
      with one key would have the same noise.
    name: what is released, for the ledger.
    centre: None for the origin, or a public (m,) guess of the mean; a good guess allows
      a small clip_norm.

  Returns:
    (mean, release): (m,) float32, and the dict for the ledger (add its 'id').

  Raises:
    ValueError: values are not a matrix, the centre has another shape, or a number is
      out of range.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2:
    raise ValueError(
      f'expected values (n, m), one row per patient, got shape {values.shape}; '
      'reduce each patient to one row.'
    )
  checks.check_clip_norm(clip_norm)
  checks.check_noise_multiplier(noise_multiplier)
  checks.check_num_patients(num_patients)
  centre = np.zeros(values.shape[1]) if centre is None else np.asarray(centre)
  if centre.shape != values.shape[1:]:
    raise ValueError(
      f'expected a centre of shape {values.shape[1:]} like the rows, got '
      f'{centre.shape}; pass one number per column.'
    )
  rows = clip_rows(values - centre, clip_norm)
  total = discrete_gaussian.noisy_sum(rows, clip_norm, noise_multiplier, key)
  release = planned(name, noise_multiplier, clip_norm)
  return np.asarray(total / num_patients + centre, np.float32), release


def clip_rows(values: np.ndarray, clip_norm: float) -> np.ndarray:
  """Scales each row (n, m) to L2 norm <= clip_norm; a non-finite row becomes zero."""
  finite = np.all(np.isfinite(values), axis=1, keepdims=True)
  values = np.where(finite, values, 0.0)
  # Dividing by the largest entry first avoids overflow of the squares.
  largest = np.max(np.abs(values), axis=1, keepdims=True, initial=0.0)
  unit = values / np.where(largest > 0, largest, 1.0)
  norm = np.linalg.norm(unit, axis=1, keepdims=True) * largest
  with np.errstate(over='ignore'):
    return values * np.minimum(1.0, clip_norm / np.where(norm > 0, norm, 1.0))


def planned(name: str, noise_multiplier: float, clip_norm: float) -> dict[str, Any]:
  """The release dict of one release over all patients; add its 'id' and record it.

  Raises:
    ValueError: a number out of range.
  """
  checks.check_clip_norm(clip_norm)
  checks.check_noise_multiplier(noise_multiplier)
  release = {
    'name': name,
    'mechanism': 'gaussian',
    'noise_multiplier': float(noise_multiplier),
    'sampling_probability': 1.0,
    'steps': 1,
    'clip_norm': float(clip_norm),
    finite_precision.FIELD: finite_precision.DISCRETE,
  }
  accounting.event(release)
  return release


def release_key(secret_key: jax.Array, name: str) -> jax.Array:
  """The secret key of one named release, hashed from the run's noise key and the name.

  A resumed run computes the same noise, so an interrupted release is not made a second
  time with other noise. SHA-256 separates this key from the streams of training and of
  sampling.
  """
  data = np.asarray(jax.random.key_data(secret_key), '<u4')
  material = b'ldm_jax release ' + name.encode() + b' ' + data.tobytes()
  words = np.frombuffer(hashlib.sha256(material).digest(), '<u4')[: data.size]
  bits = jnp.asarray(words.reshape(data.shape), jnp.uint32)
  return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(secret_key))


def latent_means(z: Array, present: Array) -> np.ndarray:
  """Mean of each patient's latents over volumes and voxels.

  Args:
    z: (p,m,...,c), present: (p,m), of `training.patients.patient_arrays`.

  Returns:
    (p,c) float64; zeros for a patient without volumes.
  """
  z, present = np.asarray(z, np.float64), np.asarray(present, bool)
  z = z.reshape(*present.shape, -1, z.shape[-1])
  share = present / np.maximum(present.sum(axis=1, keepdims=True), 1)
  return np.einsum('pm,pmc->pc', share, np.mean(z, axis=2))


def private_histograms(
  blocks: Sequence[np.ndarray],
  noise_multiplier: float,
  num_patients: int,
  key: jax.Array,
  *,
  name: str = 'private histograms',
) -> tuple[list[np.ndarray], dict[str, Any]]:
  """Releases several histograms over the same patients at once.

  Sensitivity. In each of the k blocks, patient i has a row of shares >= 0 that sum to 1
  (one record: a single 1; several records: their shares), so the L2 norm of the row is
  at most its L1 norm, 1, and that of the k rows together at most sqrt(k). Adding or
  removing a patient changes the concatenated sums by that patient's rows alone, so the
  sensitivity is sqrt(k), with equality for one record per patient. The rows are clipped
  to it nevertheless, so that an error in the blocks cannot break the bound. The bins
  must be public.

  Args:
    blocks: list of (n, num_bins of the block); see `shares`.
    noise_multiplier, num_patients, key, name: as in `private_mean`.

  Returns:
    (histograms, release): list of (num_bins,) float64, each >= 0 with sum 1 (the
    nearest such point, [Wang20]), and the dict for the ledger.

  Raises:
    ValueError: as `private_mean`.
  """
  widths = [np.shape(block)[1] for block in blocks]
  noisy, release = private_mean(
    np.concatenate(blocks, axis=1),
    histograms_norm(len(blocks)),
    noise_multiplier,
    num_patients,
    key,
    name=name,
  )
  parts = np.split(noisy, np.cumsum(widths)[:-1])
  return [onto_simplex(part) for part in parts], release


def histograms_norm(num_blocks: int) -> float:
  """L2 norm of one patient's rows in `private_histograms`: sqrt(k)."""
  return math.sqrt(num_blocks)


def shares(bins: Array, groups: Sequence[Array], num_bins: int) -> np.ndarray:
  """Share of each patient's records in each bin, (n, num_bins).

  Args:
    bins: (v,) int, bin of each record, in 0 ... num_bins - 1.
    groups: n index arrays, the records of each patient (`Split.patient_entries`).
    num_bins: number of bins.
  """
  one_hot = np.eye(num_bins)[np.asarray(bins, int)]
  return np.stack([one_hot[group].mean(axis=0) for group in groups])


def onto_simplex(values: Array) -> np.ndarray:
  """The nearest point (L2) that is >= 0 and sums to 1: (n,) -> (n,). [Duchi08]

  Setting negative values to zero and dividing by the sum would be biased towards rare
  bins.
  """
  values = np.asarray(values, np.float64)
  falling = np.sort(values)[::-1]
  excess = (np.cumsum(falling) - 1) / np.arange(1, values.size + 1)
  last = np.flatnonzero(falling > excess)[-1]
  return np.maximum(values - excess[last], 0.0)


def public_scale(parts: Array) -> float:
  """The SHARE quantile of the norms of the public patients' parts (n, m); positive.

  Raises:
    ValueError: the quantile is zero or not finite.
  """
  scale = float(
    np.quantile(np.linalg.norm(np.asarray(parts, float), axis=1), SHARE_BELOW_SCALE)
  )
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
  multiplier sigma, for any number of coordinates (`releases.private_mean`). Multiplying
  the result by the public scale is post-processing, and so is everything computed from
  it: the minimum over the grid, or a drift in closed form.

  Args:
    parts: (n, m), see `loss_parts` and `releases.latent_means`.
    scale: from `public_scale`.
    clip_norm, noise_multiplier, num_patients, key, name: as in `releases.private_mean`.

  Returns:
    (mean, release): (m,) float64, and the dict for the ledger.
  """
  mean, made = private_mean(
    np.asarray(parts, float) / scale,
    clip_norm,
    noise_multiplier,
    num_patients,
    key,
    name=name,
  )
  return scale * np.asarray(mean, float), made


def least_drift(differences: Array, grid: Sequence[float]) -> float:
  """The grid value with the least loss, given mean differences as from `loss_parts`.

  The difference at drift 0 is exactly zero, so the result is 0 where no other value has
  a negative (noisy) difference.
  """
  others = [value for value in grid if value != 0]
  best = int(np.argmin(differences))
  return float(others[best]) if differences[best] < 0 else 0.0
