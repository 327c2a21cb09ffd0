"""Laws of weights for pre-training: one release in the ledger, nothing else is seen."""

import dataclasses
import json

import numpy as np
import pytest

from ldm_jax import processes
from ldm_jax.config import checks
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.data import batching
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.pipeline import (
  preflight,
  private_budget,
  private_pretraining,
  private_releases,
  runner,
)
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import accounting, releases, secret_key
from ldm_jax.privacy.ledger import Ledger
from ldm_jax.workfolder import WorkFolder

SCHEMA = Schema(
  (Attribute('age', low=0, high=100), Attribute('sex', 'categorical', categories='FM'))
)
SECTION = 'adapt.privacy.releases.pretraining'
PLACE = private_releases.PRETRAINING
ASKED = {
  'data.private.layout': 'phantom_cardiac',
  'diffusion.weights': 'private_histogram',
  f'{SECTION}.epsilon': '4',
  f'{SECTION}.attributes': "('sex',)",
  'adapt.privacy.mechanism': 'full_batch',
}


@dataclasses.dataclass
class Split:
  """Patients with one scan each and these encoded attributes."""

  attributes: np.ndarray
  schema = SCHEMA

  @property
  def num_patients(self):
    return len(self.attributes)

  @property
  def patient_names(self):
    return [f'p{number}' for number in range(len(self.attributes))]

  @property
  def patient_entries(self):
    return [np.array([number]) for number in range(len(self.attributes))]

  def digest(self):
    return 'digest of the cohort'


MEN = np.tile([0.2, 1.0], (4000, 1))
PUBLIC = Split(np.array([[0.1, 0.0], [0.5, 0.0], [-0.3, 0.0], [0.9, 1.0]]))


@pytest.fixture
def opened(tmp_path):
  """(folder, flags) -> a Run whose stage `diffusion` has begun."""

  def opened(folder='w', mark='a', **flags):
    config = checks.check(override(defaults(), {**ASKED, **flags}))
    run = Run(config, WorkFolder(tmp_path / folder))
    vars(run)['prepared'] = {'private': Split(MEN), 'public': PUBLIC}
    run.work.restart('diffusion', mark)
    return run

  return opened


def key_file(run):
  return run.work.checkpoints('diffusion') / 'noise_key'


def test_weights_turn_the_shares_of_classes_into_those_that_are_asked_for():
  found = np.array([0, 0, 0, 1])
  made = private_pretraining.of_shares(np.array([0.5, 0.5, 0.0]), found, 10.0)
  np.testing.assert_allclose(made, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
  # A class that nobody has is drawn rarely, not never.
  made = private_pretraining.of_shares(np.array([0.0, 1.0]), found, 2.0)
  np.testing.assert_allclose(made, np.array([0.5, 0.5, 0.5, 2.0]) / 3.5)


def test_a_class_is_the_combination_of_bins_of_its_attributes():
  codes = np.array([[-1.0, 0.0], [0.99, 1.0], [np.nan, np.nan], [-0.99, 0.0]])
  both = private_pretraining.classes(SCHEMA, ('age', 'sex'), 4, codes)
  assert both[0] == both[3] and len(set(both)) == 3
  assert both.max() < private_pretraining.num_classes(SCHEMA, ('age', 'sex'), 4) == 15
  one = private_pretraining.classes(SCHEMA, ('sex',), 4, codes)
  np.testing.assert_array_equal(one, [0, 1, 2, 0])


def test_batches_follow_the_weights_and_the_step():
  weights = np.array([1.0, 0.0, 3.0])
  drawn = np.concatenate(
    [batching.weighted_batch(weights, 50, 0, step) for step in range(100)]
  )
  shares = np.bincount(drawn, minlength=3) / drawn.size
  np.testing.assert_allclose(shares, [0.25, 0, 0.75], atol=0.03)
  again = batching.weighted_batch(weights, 50, 0, 3)
  np.testing.assert_array_equal(again, drawn[150:200])


def test_the_histogram_is_one_release_recorded_before_it_is_computed(
  opened, monkeypatch
):
  run = opened()

  def killed(*args, **more):
    assert len(run.ledger.releases()) == 1, 'computed before it was recorded'
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(releases, 'private_histograms', killed)
    private_pretraining.weights(run, PUBLIC)
  assert key_file(run).stat().st_mode & 0o777 == 0o600
  (recorded,) = run.ledger.releases()
  event = accounting.event(recorded)
  assert 3.99 < accounting.epsilon([event], 1e-5)['pld'] <= 4
  assert recorded['noise'] == 'discrete_gaussian' and recorded['clip_norm'] == 1
  found = private_pretraining.weights(run, PUBLIC)  # resumes with the same key
  assert run.ledger.releases() == [recorded]
  assert not key_file(run).exists()
  # All private patients are men: the public man is drawn as often as `most` allows.
  np.testing.assert_allclose(found, np.array([0.1, 0.1, 0.1, 4.0]) / 4.3, rtol=1e-2)
  stated = json.loads(run.work.path('privacy.json').read_text())
  assert [each['name'] for each in stated['releases']] == [
    private_releases.PRETRAINING_NAME
  ]
  # The same question is not asked twice, also after the model is trained again.
  run.work.restart('diffusion', 'b')
  np.testing.assert_array_equal(private_pretraining.weights(run, PUBLIC), found)
  assert run.ledger.releases() == [recorded]


def test_a_run_that_was_killed_before_its_key_was_destroyed_destroys_it_later(
  opened, monkeypatch
):
  run = opened()

  def killed(path):
    if path.exists():
      raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(secret_key, 'destroy_key', killed)
    private_pretraining.weights(run, PUBLIC)
  assert run.work.path(*private_releases.PRETRAINING).exists()
  assert key_file(run).exists()
  private_pretraining.weights(run, PUBLIC)
  assert not key_file(run).exists()


def test_the_statement_says_destroyed_only_where_no_stage_has_a_key_left(opened):
  run = opened()
  run.work.restart('adapt', 'a')
  private_budget.finish(run)
  destroyed = 'the key was destroyed'
  assert destroyed in run.work.read_json('privacy.json')['randomness']
  key_file(run).write_text('of a histogram')
  private_budget.finish(run)
  assert destroyed not in run.work.read_json('privacy.json')['randomness']


def test_of_several_processes_the_first_alone_draws_the_noise(opened, monkeypatch):
  run = opened()
  found = private_pretraining.weights(run, PUBLIC)

  class Store:
    def take(self, name):
      return json.dumps({'value': run.work.read_json(*PLACE)['shares']})

  other = opened('other')
  monkeypatch.setattr(processes, '_group', processes._Group(1, 2, Store()))
  np.testing.assert_array_equal(private_pretraining.weights(other, PUBLIC), found)
  assert not key_file(other).exists() and not other.work.path(*PLACE).exists()
  assert other.ledger.releases() == []


def test_one_patient_moves_the_histogram_by_one_share():
  """Sensitivity 1: the row of a patient is one share in one class."""
  for codes in (MEN, MEN[:-1]):
    found = private_pretraining.classes(SCHEMA, ('sex',), 4, codes)
    groups = Split(codes).patient_entries
    rows = releases.shares(found, groups, 3)
    np.testing.assert_array_equal(np.linalg.norm(rows, axis=1), 1.0)
  assert releases.histograms_norm(1) == 1


def test_training_has_what_the_histogram_leaves(opened):
  run = opened()
  preflight.check_budget(run)
  before = private_budget.calibrated(run, [])
  private_pretraining.weights(run, PUBLIC)
  run.work.finish('diffusion', 'a')
  assert private_budget.calibrated(run, []) == before
  run.work.restart('adapt', 'a')
  scheme = private_budget.plan(run).scheme
  assert scheme.noise_multiplier == before.noise_multiplier
  assert len(run.ledger.releases()) == 2
  assert 9.9 < run.ledger.epsilon(1e-5)['pld'] <= 10
  plain = private_budget.calibrated(
    opened('other', **{'diffusion.weights': '', f'{SECTION}.epsilon': 'None'}), []
  )
  assert plain.noise_multiplier < before.noise_multiplier


def test_a_model_that_came_without_its_ledger_brings_its_release(opened, tmp_path):
  """As a sweep gives arms of a phantom the base's model, but no ledger."""
  run = opened()
  private_pretraining.weights(run, PUBLIC)
  (recorded,) = run.ledger.releases()
  run.work.finish('diffusion', 'a')
  ledger = tmp_path / 'w' / 'store' / 'ledger-private.jsonl'
  ledger.unlink()
  (tmp_path / 'w' / 'privacy.json').unlink()
  run.work.restart('adapt', 'a')
  private_budget.plan(run)
  assert recorded in Ledger(ledger).releases()
  ledger.unlink()
  (tmp_path / 'w' / 'privacy.json').unlink()
  run.work.path(*private_releases.PRETRAINING).unlink()
  run.work.restart('adapt', 'b')
  with pytest.raises(ValueError, match='has its release'):
    private_budget.plan(run)


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({f'{SECTION}.epsilon': 'None'}, r'diffusion\.weights'),
    ({'diffusion.weights': ''}, r'diffusion\.weights'),
    ({f'{SECTION}.attributes': '()'}, r'diffusion\.weights'),
    ({'adapt.privacy': 'None'}, r'diffusion\.weights'),
    ({f'{SECTION}.epsilon': '10'}, r'pretraining\.epsilon'),
    ({f'{SECTION}.most': '0.5'}, r'pretraining\.most'),
    ({'sample.model': 'diffusion'}, r'sample\.model'),
    ({'diffusion.weights': 'loud'}, r'diffusion\.weights'),
  ],
)
def test_weights_without_their_release_are_refused(flags, key):
  flags = {**ASKED, **flags}
  if flags.get('adapt.privacy') == 'None':
    flags = {key: value for key, value in flags.items() if SECTION not in key}
    del flags['adapt.privacy.mechanism']
  with pytest.raises(ValueError, match=key):
    checks.check(override(defaults(), flags))


def test_unknown_attributes_are_refused_before_training(opened):
  with pytest.raises(ValueError, match='age, sex'):
    private_pretraining.check(opened(**{f'{SECTION}.attributes': "('shoe',)"}))


def test_the_model_is_trained_again_when_its_histogram_changes(opened):
  marks = {
    runner._sections('diffusion', opened(**flags).config)
    for flags in ({}, {'diffusion.weights': '', f'{SECTION}.epsilon': 'None'})
  }
  assert len(marks) == 2
