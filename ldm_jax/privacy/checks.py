"""Range checks of the privacy parameters; errors name value, rule and config key.

This module needs neither jax nor an accountant, so a config can be checked before
anything else is imported.
"""

import math
import numbers
from typing import Any

LARGEST_EPSILON = 500.0  # no protection any more; larger figures have no meaning
CLIPPING = ('constant', 'normalised', 'per_layer', 'adaptive')  # see `clipping`


def check_epsilon(epsilon: float) -> None:
  """Raises ValueError unless 0 < epsilon <= LARGEST_EPSILON."""
  if not _is_number(epsilon) or not 0 < epsilon <= LARGEST_EPSILON:
    raise ValueError(
      f'epsilon is {epsilon}; it must be above 0 and at most {LARGEST_EPSILON:g} '
      '(1 to 10 is usual). Change adapt.privacy.epsilon; to train without privacy, '
      'set adapt.privacy to None.'
    )


def check_delta(delta: float, num_patients: int) -> None:
  """Raises ValueError unless 0 < delta < 1 / num_patients.

  With delta = 1/N, publishing one random patient's data would count as private.
  """
  check_num_patients(num_patients)
  if not _is_number(delta) or not 0 < delta < 1 / num_patients:
    raise ValueError(
      f'expected 0 < delta < 1/num_patients = 1/{num_patients} = '
      f'{1 / num_patients:.3g}, got {delta}: a larger delta would allow publishing one '
      "patient's data. Change adapt.privacy.delta."
    )


def check_num_patients(num_patients: int) -> None:
  """Raises ValueError unless num_patients is a whole number >= 1."""
  if not _is_whole(num_patients) or num_patients < 1:
    raise ValueError(
      f'the number of private patients is {num_patients}; it must be a whole number '
      'of at least 1. Check data.private.'
    )


def sampling_probability(num_patients: int, batch_size: float) -> float:
  """q = batch_size / num_patients, the probability of each patient in each step.

  Args:
    num_patients: public number N of private patients.
    batch_size: expected number of patients per step, > 0, at most N.

  Raises:
    ValueError: the batch is larger than the cohort, or a number is out of range.
  """
  check_num_patients(num_patients)
  if not _is_number(batch_size) or not batch_size > 0:
    raise ValueError(
      f'the batch size is {batch_size}; it must be above 0. '
      'Change adapt.privacy.batch_size.'
    )
  if batch_size > num_patients:
    raise ValueError(
      f'the batch size is {batch_size} and the private cohort has {num_patients} '
      'patients; the expected batch cannot exceed the cohort. Lower '
      'adapt.privacy.batch_size or give more patients in data.private.'
    )
  return batch_size / num_patients


def check_sampling_probability(probability: float) -> None:
  """Raises ValueError unless 0 < q <= 1."""
  if not _is_number(probability) or not 0 < probability <= 1:
    raise ValueError(
      f'the sampling probability is {probability}; it must lie in (0, 1]. It is '
      'adapt.privacy.batch_size over the number of private patients.'
    )


def check_steps(steps: int) -> None:
  """Raises ValueError unless steps is a whole number >= 1."""
  if not _is_whole(steps) or steps < 1:
    raise ValueError(
      f'the number of steps is {steps}; it must be a whole number of at least 1. '
      'Change adapt.steps.'
    )


def check_count(name: str, value: int) -> None:
  """Raises ValueError unless the field `name` of a release is a whole number >= 1."""
  if not _is_whole(value) or value < 1:
    raise ValueError(
      f'{name} is {value!r}; it must be a whole number of at least 1. Change '
      f'adapt.privacy.{name}.'
    )


def check_best_of(mean_runs: float) -> None:
  """Raises ValueError unless the mean number of runs of a choice is at least 1."""
  if not (_is_number(mean_runs) and 1 <= mean_runs < math.inf):
    raise ValueError(
      f'the mean number of runs is {mean_runs}; it must be finite and at least 1. '
      'Change --best_of (adapt.privacy.best_of).'
    )


def check_clipping(rule: str) -> None:
  """Raises ValueError unless the rule is one of CLIPPING."""
  if rule not in CLIPPING:
    raise ValueError(
      f'the clipping rule is {rule!r}; it must be one of {", ".join(CLIPPING)}. '
      'Change adapt.privacy.clipping.'
    )


def check_clip_norm(clip_norm: Any) -> None:
  """Raises ValueError unless the clip norm is finite and at least 1e-12."""
  if not _is_number(clip_norm) or not 1e-12 <= clip_norm < math.inf:
    raise ValueError(
      f'the clip norm is {clip_norm}; it must be finite and at least 1e-12. '
      'Change adapt.privacy.clip_norm.'
    )


def check_noise_multiplier(noise_multiplier: float, clip_only: bool = False) -> None:
  """Raises ValueError unless the noise multiplier is a finite number > 0.

  0 is accepted only with clip_only, a mode without privacy (epsilon is infinite).
  """
  if clip_only and noise_multiplier == 0:
    return
  if not _is_number(noise_multiplier) or not 0 < noise_multiplier < math.inf:
    raise ValueError(
      f'the noise multiplier is {noise_multiplier}; it must be finite and above 0. '
      'Change adapt.privacy.noise_multiplier, or use clip_only for clipping without '
      'noise, with infinite epsilon.'
    )


def _is_number(value):
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value):
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)
