"""Laws of the private choice: its bound holds for choices that are computed exactly."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from ldm_jax.privacy import (
  accountants,
  accounting,
  finite_precision,
  mechanisms,
  privacy_json,
  private_choice,
)

ORDERS = np.array([1.5, 2.0, 4.0, 10.0, 40.0])


def renyi(p, q, order):
  return math.log(np.sum(p**order * q ** (1 - order))) / (order - 1)


def best_of(p, gamma):
  """Distribution of the best of K runs with scores 0, 1, ..., K geometric."""
  below = np.minimum(np.cumsum(p), 1.0)
  generated = gamma * below / (1 - (1 - gamma) * below)  # E[below^K]
  return np.diff(generated, prepend=0.0)


@pytest.mark.parametrize('mean_runs', [1.0, 3.0, 10.0, 100.0])
def test_the_bound_holds_for_every_choice_that_can_be_computed(mean_runs):
  rng = np.random.default_rng(0)
  tightest = math.inf
  for trial in range(60):
    p = rng.dirichlet(np.full(6, 0.7))
    q = p * np.exp(rng.uniform(-1, 1, 6) * (0.2 + trial % 4))
    # Rare high scores are where repeating runs tells most.
    p, q = np.sort(p)[::-1], (q / q.sum())
    one_run = np.array([renyi(p, q, order) for order in ORDERS])
    chosen = [best_of(each, 1 / mean_runs) for each in (p, q)]
    bound = private_choice.divergences(ORDERS, one_run, mean_runs)
    found = np.array([renyi(*chosen, order) for order in ORDERS])
    assert np.all(found <= bound + 1e-9)
    tightest = min(tightest, float(np.min(bound - found)))
  if mean_runs == 1:
    exact = private_choice.divergences(ORDERS, one_run, 1.0)
    assert np.all(exact >= one_run)


def test_a_choice_costs_more_than_a_run_and_far_less_than_all_runs():
  event = accounting.gaussian_event(4.0)
  one = accounting.epsilon([event], 1e-5)['rdp']
  ten = private_choice.epsilon([event], 1e-5, 10)
  all_ = accounting.epsilon([accounting.gaussian_event(4.0, 10)], 1e-5)['rdp']
  assert one < ten < 3.5 * one
  hundred = private_choice.epsilon([event], 1e-5, 100)
  assert (
    ten
    < hundred
    < accounting.epsilon([accounting.gaussian_event(4.0, 100)], 1e-5)['rdp']
  )
  assert all_ > one


def test_fewer_runs_than_one_are_refused():
  with pytest.raises(ValueError, match='--best_of'):
    private_choice.epsilon([accounting.gaussian_event(4.0)], 1e-5, 0.5)


def release(best_of=10.0, **more):
  scheme = mechanisms.Poisson(
    num_patients=1000, batch_size=50, steps=20, clip_norm=1.0, best_of=best_of
  )
  return scheme.calibrated(3.0, 1e-5).release('adapt') | {'id': 'a', **more}


def test_a_choice_is_one_release_whose_epsilon_is_that_of_the_theorem():
  made = release()
  assert (made['mechanism'], made['best_of']) == ('best_of_gaussian', 10.0)
  one_run = accounting.event({**made, 'mechanism': 'gaussian'})
  for relation in accountants.RELATIONS:
    found = accounting.epsilon([accounting.event(made)], 1e-5, relation)
    assert set(found) == {'rdp'}  # there is no PLD of a choice
    # The bound of this module, and that of dp_accounting, which falls below it only
    # where divergences at larger orders bound those at smaller ones.
    theorem = private_choice.epsilon([one_run], 1e-5, 10, relation)
    assert theorem * 0.99 < accounting.claim(found) <= theorem * (1 + 1e-9)
  assert (
    2.99 < accounting.claim(accounting.epsilon([accounting.event(made)], 1e-5)) <= 3
  )
  plain = mechanisms.Poisson(num_patients=1000, batch_size=50, steps=20, clip_norm=1.0)
  assert made['noise_multiplier'] > plain.calibrated(3.0, 1e-5).noise_multiplier
  (first, *_), *_ = pairs = accounting.curve([accounting.event(made)])
  deltas = [delta for _, delta in pairs]
  assert first == 0 and deltas == sorted(deltas, reverse=True)
  at_claim = np.interp(3.0, *zip(*pairs, strict=True))
  assert at_claim == pytest.approx(1e-5, rel=1.0)


def test_choices_and_other_releases_add_up():
  made, other = accounting.event(release()), accounting.gaussian_event(4.0)
  both = accounting.claim(accounting.epsilon([made, other], 1e-5))
  assert both > accounting.claim(accounting.epsilon([made], 1e-5)) + 0.1
  with pytest.raises(ValueError, match='nothing is left'):
    accounting.calibrate(3.0, 1e-5, 0.05, 20, [made])


def test_a_mechanism_that_the_theorem_is_not_used_for_does_not_forget_the_choice():
  with pytest.raises(ValueError, match='best_of'):
    mechanisms.TruncatedPoisson(
      num_patients=100,
      batch_size=5,
      steps=2,
      clip_norm=1.0,
      max_batch_size=9,
      best_of=3,
    )


def test_the_statement_claims_the_choice_only_for_the_chosen_run():
  made = [release(randomness='operating system')]
  about = {
    'delta': 1e-5,
    'num_patients': 1000,
    'randomness': '',
    'config_sha256': '',
  }
  chosen = privacy_json.build(made, **about)
  assert chosen['private'] and 2.99 < chosen['epsilon'] <= 3
  assert private_choice_words(chosen['assumptions'])
  assert 'secret geometric number' in chosen['releases'][0]['sampling']
  other = privacy_json.build(made, **about, is_decided=False)
  assert not other['private'] and 'THIS RUN BY ITSELF' in json.dumps(other)


def private_choice_words(assumptions):
  return any('private choice' in text for text in assumptions)


def test_what_finite_precision_costs_counts_every_run_of_a_choice():
  made = release()
  found = finite_precision.delta([made], epsilon=3.0)
  # Pairs of a step are within 2 n 2^-80 of Gaussian ones, n <= 2^32, in 10 runs.
  assert found == pytest.approx(10 * 20 * 2**-47 * (1 + math.exp(3)), rel=1e-9)
  assert finite_precision.delta([{**made, 'best_of': 20.0}], epsilon=3.0) == 2 * found
  assert finite_precision.delta([made], epsilon=1e4) == 1.0


def test_the_number_of_runs_is_geometric_and_arms_are_uniform():
  rng = np.random.default_rng(0)
  below = lambda limit: int(rng.integers(limit))
  drawn = [private_choice.draw_arms('abc', 2.5, below) for _ in range(4000)]
  counts = np.bincount([min(len(each), 8) for each in drawn], minlength=9)[1:]
  expected = 0.4 * 0.6 ** np.arange(8)
  expected[-1] = 1 - expected[:-1].sum()
  assert stats.chisquare(counts, 4000 * expected).pvalue > 1e-3
  arms = ''.join(map(''.join, drawn))
  assert stats.chisquare([arms.count(each) for each in 'abc']).pvalue > 1e-3
  assert private_choice.draw_arms(['a'], 1.0) == ['a']
  with pytest.raises(ValueError, match='arm'):
    private_choice.draw_arms([], 2.0)


METRICS = {
  'frechet': {'value': 2.5, 'internal': True, 'reads': ['test']},
  'control': {'LV': {'pearson_r': 0.9, 'slope': float('nan')}},
  'steps': {'value': 4},
  'none': None,
}


def test_a_score_that_reads_confidential_scans_is_refused():
  assert private_choice.score(METRICS, 'control.LV.pearson_r') == 0.9
  assert private_choice.score(METRICS, '-control.LV.pearson_r') == -0.9
  assert private_choice.score(METRICS, 'steps') == 4
  for name in ('control.LV.slope', 'none', '-none', 'control'):
    assert private_choice.score(METRICS, name) == -math.inf
  for name in ('frechet', '-frechet.value'):
    with pytest.raises(ValueError, match=r'reads scans of test.*Expected a figure'):
      private_choice.score(METRICS, name)
  with pytest.raises(ValueError, match='--score'):
    private_choice.score(METRICS, 'control.RV.pearson_r')


def test_a_choice_is_made_once(tmp_path):
  ledger = tmp_path / 'ledger.jsonl'
  assert private_choice.decided(ledger, 'a') is None
  for _ in range(2):
    private_choice.decide(ledger, 'a', 'run')
  with pytest.raises(ValueError, match='took another run'):
    private_choice.decide(ledger, 'a', 'other')
  assert private_choice.decided(ledger, 'a') == 'run'
  assert private_choice.decided(ledger, 'b') is None
  next(tmp_path.glob('*choice-a*')).write_text('{')
  with pytest.raises(ValueError, match='damaged'):
    private_choice.decided(ledger, 'a')
