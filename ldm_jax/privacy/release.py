"""Private releases besides training: means of per-patient vectors.

One release touches every patient once (no sampling), and belongs in the ledger like a
training run: the function returns the release dict next to the result.
"""

import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import accounting, checks, mechanism


def private_mean(
  values,
  clip_norm,
  noise_multiplier,
  num_patients,
  key,
  *,
  name='private mean',
  centre=None,
):
  """Releases the mean over patients of a vector each, with Gaussian noise.

  Sensitivity. Let f = sum_i clip(v_i - centre), where clip scales its argument to L2
  norm at most C = clip_norm. Adding or removing patient j adds or removes the one term
  clip(v_j - centre); no other term, and neither the centre nor the divisor, depends on
  patient j. So f changes by at most C in L2, and f + N(0, (sigma C)^2 I) is one
  Gaussian release of noise multiplier sigma. Dividing by the public number of patients
  and adding the public centre is post-processing. (Dividing by the number of rows would
  leak it.) A row that is not finite counts as zero after centring, which is within the
  bound. Sampling probability 1, one step.

  Args:
    values: (n, m), one row per patient: a patient's several volumes are reduced to one
      row before, for instance by their mean.
    clip_norm: C > 0, from public data or constants.
    noise_multiplier: sigma > 0.
    num_patients: public number of patients N, the divisor.
    key: a secret key of this release alone (`mechanism.new_noise_key`); two releases
      under one key would share their noise.
    name: what is released, for the ledger.
    centre: None for the origin, or a public (m,) guess of the mean; a good one lets C
      be small.

  Returns:
    (mean, release): (m,) float32, and the dict for the ledger (add its 'id').

  Raises:
    ValueError: values are not a matrix, the centre does not fit, or a number is out of
      range.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2:
    raise ValueError(
      f'values have shape {values.shape}; one row per patient is needed: (n, m).'
    )
  checks.check_clip_norm(clip_norm)
  checks.check_noise_multiplier(noise_multiplier)
  checks.check_num_patients(num_patients)
  centre = np.zeros(values.shape[1]) if centre is None else np.asarray(centre)
  if centre.shape != values.shape[1:]:
    raise ValueError(
      f'the centre has shape {centre.shape}; it must match the rows, '
      f'{values.shape[1:]}.'
    )
  total = np.sum(clip_rows(values - centre, clip_norm), axis=0)
  mean = mechanism.privatise(
    {'mean': jnp.asarray(total, jnp.float32)},
    key,
    0,
    noise_multiplier,
    clip_norm,
    num_patients,
  )['mean']
  release = {
    'name': name,
    'mechanism': 'gaussian',
    'noise_multiplier': float(noise_multiplier),
    'sampling_probability': 1.0,
    'steps': 1,
    'clip_norm': float(clip_norm),
  }
  accounting.event(release)
  return np.asarray(mean + centre, np.float32), release


def clip_rows(values, clip_norm):
  """Scales each row (n, m) to L2 norm <= clip_norm; a row not finite becomes zero."""
  finite = np.all(np.isfinite(values), axis=1, keepdims=True)
  values = np.where(finite, values, 0.0)
  # dividing by the largest entry first keeps the squares from overflowing
  largest = np.max(np.abs(values), axis=1, keepdims=True, initial=0.0)
  unit = values / np.where(largest > 0, largest, 1.0)
  norm = np.linalg.norm(unit, axis=1, keepdims=True) * largest
  with np.errstate(over='ignore'):
    return values * np.minimum(1.0, clip_norm / np.where(norm > 0, norm, 1.0))
