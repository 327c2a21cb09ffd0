"""Laws of a private run as one object: draws, noise and cost cannot be mixed."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ldm_jax.privacy import accounting, mechanisms, noise, privacy_json, sampling

sys.path.insert(0, str(Path(__file__).parent))
import independent

DELTA = 1e-5
COMMON = {'num_patients': 120, 'batch_size': 12, 'steps': 30, 'clip_norm': 0.7}
MADE = {
  'poisson': mechanisms.Poisson(**COMMON),
  'truncated': mechanisms.TruncatedPoisson(**COMMON, max_batch_size=20),
  'banded': mechanisms.Banded(**COMMON, num_bands=3, strategy=(0.8, 0.48, 0.36)),
  'full_batch': mechanisms.FullBatch(**{**COMMON, 'batch_size': None}),
}
each = pytest.mark.parametrize('name', MADE)


@each
def test_calibration_is_verified_forward_for_every_mechanism(name):
  # dp_accounting takes seconds for a truncated run of little noise: one easy case
  easy = name == 'truncated'
  target = 1.0 if easy else 3.0
  for before in ((), [accounting.gaussian_event(8.0)])[easy:]:
    found = MADE[name].calibrated(target, DELTA, before)
    total = accounting.epsilon([*before, found.event()], DELTA)
    assert total['pld'] <= target and total['pld'] <= total['rdp']
    less = dataclasses.replace(found, noise_multiplier=0.999 * found.noise_multiplier)
    assert accounting.epsilon([*before, less.event()], DELTA)['pld'] > target


@each
def test_epsilon_is_recomputed_from_the_statement_by_other_code(name):
  scheme = dataclasses.replace(MADE[name], noise_multiplier=2.5)
  made = privacy_json.build(
    [scheme.release('adapt')],
    delta=DELTA,
    num_patients=120,
    randomness='',
    config_sha256='',
  )
  read = json.loads(json.dumps(made, allow_nan=False))
  (release,) = read['releases']
  for relation, figures in read['relations'].items():
    found = independent.of_releases([release], DELTA, relation)
    assert figures['pld'] == pytest.approx(found, rel=3e-3)
    assert figures['pld'] <= figures['rdp']
  assert read['relations']['add_or_remove_one'] == read['accountants']
  assert read['epsilon'] == release['epsilon'] == read['accountants']['pld']
  assert f'{scheme.sampling_probability:.6g}' in release['sampling'] or name == (
    'full_batch'
  )


@each
def test_draws_noise_and_cost_come_from_the_same_fields(name):
  scheme = dataclasses.replace(MADE[name], noise_multiplier=2.5)
  sampler, release = scheme.sampler(b'secret'), scheme.release('adapt')
  assert sampler.num_patients == scheme.num_patients
  assert sampler.sampling_probability == release['sampling_probability']
  assert scheme.noise().noise_multiplier == release['noise_multiplier'] == 2.5
  assert release['clip_norm'] == scheme.clip_norm
  assert release['steps'] == scheme.steps
  assert accounting.event(release) == scheme.event()
  if name == 'truncated':
    assert sampler.max_batch_size == release['max_batch_size'] == 20
  if name == 'banded':
    made = scheme.noise()
    assert sampler.num_groups == release['num_bands'] == len(made.coefficients) == 3
    assert tuple(release['strategy']) == made.coefficients == scheme.strategy
    assert made.steps == scheme.steps
  sizes = [sampler.draw(step).size for step in range(600)]
  error = 5 * np.sqrt(scheme.expected_batch / 600)
  assert np.mean(sizes) == pytest.approx(
    scheme.expected_batch, abs=error if name != 'truncated' else 1
  )


def test_one_band_is_plain_poisson_in_draws_noise_and_cost():
  plain = dataclasses.replace(MADE['poisson'], noise_multiplier=2.5)
  banded = mechanisms.Banded(**COMMON, num_bands=1, noise_multiplier=2.5).prepared()
  for step in range(20):
    draws = [made.sampler(b'secret').draw(step) for made in (plain, banded)]
    np.testing.assert_array_equal(*draws)
  assert banded.noise() == plain.noise() == noise.Independent(2.5)
  assert banded.event() == plain.event()
  assert banded.expected_batch == plain.expected_batch


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda: mechanisms.Banded(**COMMON, num_bands=11), r'11 x 12 = 132.*num_bands'),
    (lambda: mechanisms.Banded(**COMMON, num_bands=0), 'num_bands'),
    (
      lambda: mechanisms.Banded(**{**COMMON, 'steps': 2}, num_bands=3),
      r'2 steps.*num_bands',
    ),
    (
      lambda: mechanisms.Banded(**COMMON, num_bands=3, strategy=(0.8, 0.6)),
      '2 coefficients',
    ),
    (lambda: mechanisms.TruncatedPoisson(**COMMON, max_batch_size=0), 'max_batch_size'),
    (lambda: mechanisms.FullBatch(**COMMON), 'num_patients = 120 for a full batch'),
    (lambda: mechanisms.Poisson(**{**COMMON, 'batch_size': 121}), 'cannot exceed'),
    (lambda: mechanisms.Poisson(**COMMON, noise_multiplier=0.0), 'noise multiplier'),
    (lambda: MADE['poisson'].noise(), 'calibrated'),
    (lambda: MADE['poisson'].release('adapt'), 'calibrated'),
    (
      lambda: mechanisms.Banded(**COMMON, num_bands=3, noise_multiplier=1.0).noise(),
      'prepared',
    ),
    (
      lambda: mechanisms.Banded(**COMMON, num_bands=3, noise_multiplier=1.0).release(
        ''
      ),
      'prepared',
    ),
  ],
)
def test_impossible_pairs_cannot_be_written(make, words):
  with pytest.raises(ValueError, match=words):
    make()


def test_a_run_is_recorded_in_full_and_as_what_it_is():
  release = dataclasses.replace(MADE['poisson'], noise_multiplier=2.5).release('adapt')
  assert release == {
    'name': 'adapt',
    'mechanism': 'gaussian',
    'noise_multiplier': 2.5,
    'sampling_probability': 0.1,
    'steps': 30,
    'clip_norm': 0.7,
    'noise': 'rounded_gaussian',
  }
  for name, mechanism in (
    ('truncated', 'truncated_gaussian'),
    ('banded', 'banded_gaussian'),
  ):
    scheme = dataclasses.replace(MADE[name], noise_multiplier=2.5)
    assert isinstance(scheme.sampler(b'secret'), sampling.PoissonSampler)
    assert scheme.release('adapt')['mechanism'] == mechanism
    assert scheme.event() != accounting.event(release)
