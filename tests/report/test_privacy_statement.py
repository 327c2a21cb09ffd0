"""Laws of the privacy statement in words."""

import math

import pytest

from ldm_jax.privacy import privacy_json
from ldm_jax.report import privacy_statement, wording

RELEASE = {
  'name': 'fine-tuning',
  'mechanism': 'gaussian',
  'noise_multiplier': 1.0,
  'sampling_probability': 1.0,
  'steps': 1,
  'clip_norm': 1.0,
  'randomness': 'operating system',
}


def privacy(**changes):
  result = {
    'unit': 'patient',
    'relation': 'add_or_remove_one',
    'epsilon': 4.4,
    'delta': 1e-5,
    'num_patients': 200,
    'releases': [RELEASE],
    'accountants': {'pld': 4.4, 'rdp': 4.8},
    'randomness': 'operating system entropy; the key is destroyed when the run ends',
    'assumptions': ['one identifier a patient'],
    'not_covered': ['patients of the public cohort'],
  }
  return {**result, **changes}


def words(said):
  paragraphs = [p for _, group in said.sections for p in group]
  return ' '.join([said.headline, *said.warnings, *paragraphs])


def test_pure_epsilon_bounds_the_attacker_by_the_logistic_function():
  bounds = privacy_statement.attack_bounds(1.0, 0.0)
  assert bounds['accuracy'] == pytest.approx(math.e / (1 + math.e))
  assert bounds['advantage'] == pytest.approx(math.tanh(0.5))
  assert bounds['detection'] == pytest.approx(0.01 * math.e)


def test_no_loss_means_blind_guessing_and_no_protection_means_certainty():
  assert privacy_statement.attack_bounds(0.0, 0.0)['accuracy'] == 0.5
  assert privacy_statement.attack_bounds(0.0, 0.0)['advantage'] == 0.0
  assert privacy_statement.attack_bounds(1000.0, 0.0)['accuracy'] == pytest.approx(1)


def test_the_bound_holds_for_the_best_attack_on_one_gaussian_release():
  from scipy import stats

  best = stats.norm.cdf(0.5)  # Threshold test of N(0, 1) against N(1, 1).
  epsilon_delta = (4.4, 1e-5)
  bounds = privacy_statement.attack_bounds(
    *epsilon_delta, privacy_statement.trade_off(privacy())
  )
  assert best <= bounds['accuracy'] <= best + 0.05
  power = stats.norm.sf(stats.norm.isf(0.01) - 1)
  assert power <= bounds['detection'] <= power + 0.03
  assert (
    bounds['accuracy'] < privacy_statement.attack_bounds(*epsilon_delta)['accuracy']
  )


def test_unreadable_releases_leave_the_looser_bound():
  assert privacy_statement.trade_off({'releases': [{'mechanism': 'unheard of'}]}) == ()
  assert privacy_statement.trade_off({}) == ()


@pytest.mark.parametrize(
  'nothing', [None, {}, privacy(epsilon='inf'), privacy(epsilon=None)]
)
def test_without_a_finite_epsilon_the_model_is_called_not_private(nothing):
  said = privacy_statement.statement(nothing)
  assert not said.private
  assert 'NOT private' in said.headline
  assert said.bounds is None


def test_no_recorded_release_is_no_guarantee():
  assert not privacy_statement.statement(privacy(epsilon=0.0, releases=[])).private


def test_a_private_run_says_what_is_protected_and_what_is_not():
  said = privacy_statement.statement(privacy())
  text = words(said)
  assert said.private
  assert not said.warnings
  for expected in ('ε = 4.4', '10⁻⁵', 'patient', '200', '50 %', 'public cohort'):
    assert expected in text


@pytest.mark.parametrize(
  'changes',
  [
    {'randomness': 'FIXED SEED 0 (generator threefry2x32): protects nobody'},
    {'randomness': {'source': 'fixed key, demonstration only'}},
    {'randomness': {'fixed': True}},
    {'demonstration_only': True},
  ],
)
def test_a_fixed_key_is_called_a_demonstration_and_claims_nothing(changes):
  said = privacy_statement.statement(privacy(**changes))
  assert not said.private
  assert said.bounds is None
  assert 'Demonstration only' in said.headline
  assert 'Do not release' in said.warnings[0]


def test_a_delta_as_large_as_one_in_the_cohort_is_warned_of():
  said = privacy_statement.statement(privacy(delta=0.01))
  assert any('publish one patient outright' in w for w in said.warnings)


def test_an_epsilon_below_the_accountants_is_warned_of():
  said = privacy_statement.statement(privacy(epsilon=1.0))
  assert any('larger ε' in w for w in said.warnings)


def test_the_mechanism_and_the_exchange_of_patients_are_put_into_words():
  banded = {**RELEASE, 'sampling': '4 random groups take turns'}
  relations = {'substitute_one': {'pld': 7.25, 'rdp': 'inf'}}
  said = words(
    privacy_statement.statement(privacy(releases=[banded], relations=relations))
  )
  assert '4 random groups take turns' in said
  assert 'exchanged for another' in said
  assert 'PLD: 7.25, RDP: ∞' in said


def test_the_bounds_are_those_of_the_relation_that_the_attacker_has():
  """At epsilon 8 of 5860 steps of 256 among 10,000: who knows N and everybody else
  asks which of two patients took part, and is right far more often."""
  training = {
    **RELEASE,
    'noise_multiplier': 1.375,
    'sampling_probability': 0.0256,
    'steps': 5860,
    'noise': 'rounded_gaussian',
  }
  made = privacy_json.build(
    [training],
    delta=1e-5,
    num_patients=10_000,
    randomness='operating system entropy',
    config_sha256='ab',
  )
  assert made['epsilon'] == pytest.approx(8, abs=0.1)
  said = privacy_statement.statement(made)
  assert said.bounds['accuracy'] == pytest.approx(0.79, abs=0.005)
  assert said.substitution['accuracy'] == pytest.approx(0.925, abs=0.005)
  text = words(said)
  for bounds in (said.bounds, said.substitution):
    assert wording.percent(bounds['accuracy']) in text
  assert 'zero-out' in text and 'which of two patients' in text
  for relation, curve in made['curves'].items():
    assert curve['delta'][0] < 1 and curve['delta'] == sorted(curve['delta'])[::-1]
    assert curve['delta'][-1] < 2e-9 and curve['epsilon'][0] == 0
    # The trade-off curve follows from the profile, whose first point is the advantage.
    bounds = privacy_statement.bounds_of(made, relation)
    assert bounds['advantage'] <= curve['delta'][0] + 1e-9
    assert curve['misses'][1] == pytest.approx(1 - bounds['detection'])
    assert curve['misses'] == sorted(curve['misses'])[::-1]
    assert all(
      miss <= 1 - alarm + 1e-12
      for miss, alarm in zip(curve['misses'], curve['false_alarms'], strict=True)
    )
  assert made['neighbours']['add_or_remove_one'].startswith(
    'zero-out (replace-special)'
  )
