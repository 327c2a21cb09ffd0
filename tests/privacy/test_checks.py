"""What a privacy parameter may be; each error names the value and the config key."""

import math

import pytest

from ldm_jax.privacy import checks


@pytest.mark.parametrize(
  'epsilon', [0, -1.0, math.nan, math.inf, 500.1, None, '10', True]
)
def test_an_impossible_epsilon_is_refused_with_its_config_key(epsilon):
  with pytest.raises(ValueError, match=r'adapt\.privacy\.epsilon'):
    checks.check_epsilon(epsilon)
  checks.check_epsilon(500)


@pytest.mark.parametrize(
  ('check', 'good', 'bad', 'key'),
  [
    (checks.check_num_patients, 1, (0, -1, 2.0, True, None), 'data.private'),
    (checks.check_steps, 1, (0, 1.5, None), 'adapt.steps'),
    (
      checks.check_sampling_probability,
      1.0,
      (0.0, 1.001, math.nan, None),
      'adapt.privacy.batch_size',
    ),
    (
      checks.check_clip_norm,
      1e-12,
      (0.0, 1e-13, math.inf, math.nan),
      'adapt.privacy.clip_norm',
    ),
    (
      checks.check_noise_multiplier,
      1e-3,
      (0.0, -1.0, math.inf, math.nan, None),
      'adapt.privacy.noise_multiplier',
    ),
    (checks.check_clipping, 'adaptive', ('median', None), 'adapt.privacy.clipping'),
  ],
  ids=lambda value: getattr(value, '__name__', ''),
)
def test_values_out_of_range_are_refused_and_the_limit_is_not(check, good, bad, key):
  check(good)
  for value in bad:
    with pytest.raises(ValueError, match=key.replace('.', r'\.')):
      check(value)


def test_no_noise_is_accepted_for_clipping_alone():
  checks.check_noise_multiplier(0, clip_only=True)
  with pytest.raises(ValueError, match='clip_only'):
    checks.check_noise_multiplier(-1.0, clip_only=True)


@pytest.mark.parametrize('delta', [0, -1e-5, 0.01, 0.5, math.nan, None])
def test_a_delta_that_would_publish_a_patient_is_refused(delta):
  with pytest.raises(ValueError, match=r'1/num_patients'):
    checks.check_delta(delta, 100)
  checks.check_delta(0.009, 100)


def test_a_batch_larger_than_the_cohort_is_refused():
  assert checks.sampling_probability(200, 50) == 0.25
  assert checks.sampling_probability(200, 200) == 1.0
  with pytest.raises(ValueError, match=r'cohort has 200 patients'):
    checks.sampling_probability(200, 201)
  with pytest.raises(ValueError, match=r'adapt\.privacy\.batch_size'):
    checks.sampling_probability(200, 0)
  with pytest.raises(ValueError, match=r'data\.private'):
    checks.sampling_probability(0, 1)
