"""Laws of the audit: never above the truth, and a broken mechanism is caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_privacy import auditing

from ldm_jax.evaluation import memorisation
from ldm_jax.privacy import (
  accounting,
  canaries,
  epsilon_lower_bounds,
  noise,
  secret_key,
)

DELTA = 1e-5
CLAIMED = 1.0
SIGMA = accounting.calibrate(CLAIMED, DELTA, 1.0, 1)


def gaussian_scores(sigma, num, seed):
  rng = np.random.default_rng(seed)
  return rng.normal(1, sigma, num), rng.normal(0, sigma, num)


def one_run(sigma, num_canaries, guesses, seed):
  """Every canary has a direction of its own: counts of the surest guesses."""
  rng = np.random.default_rng(seed)
  inside = rng.random(num_canaries) < 0.5
  scores = inside + rng.normal(0, sigma, num_canaries)
  order = np.argsort(scores)
  sure_out, sure_in = order[: guesses // 2], order[-(guesses // 2) :]
  return int(np.sum(~inside[sure_out]) + np.sum(inside[sure_in])), guesses


def test_one_run_with_canaries_never_exceeds_the_truth_and_catches_broken_noise():
  for seed in range(20):
    correct, guesses = one_run(SIGMA, 1000, 100, seed)
    assert (
      epsilon_lower_bounds.epsilon_one_run(correct, guesses, 1000, DELTA, 0.99)
      <= CLAIMED
    )
  correct, guesses = one_run(SIGMA / 4, 1000, 100, 0)
  assert epsilon_lower_bounds.epsilon_one_run(correct, guesses, 1000, DELTA) > CLAIMED


@pytest.mark.parametrize(
  ('correct', 'guesses', 'canaries'),
  [(95, 100, 1000), (60, 100, 100), (500, 510, 1000)],
)
def test_the_one_run_bound_equals_an_independent_implementation(
  correct, guesses, canaries
):
  theirs = auditing._epsilon_one_run(0.0, canaries, guesses, correct, 0.05, DELTA)
  ours = epsilon_lower_bounds.epsilon_one_run(correct, guesses, canaries, DELTA)
  assert ours == pytest.approx(theirs, abs=1e-4)


def mechanism_scores(sigma, num_tries):
  """Runs the real mechanism with and without a canary gradient of norm C."""
  clip_norm, size = 0.5, 16
  canary = jnp.full((size,), clip_norm / np.sqrt(size))

  def tries(total, key):
    run = lambda step: noise.privatise({'w': total}, key, step, sigma, clip_norm, 4.0)[
      'w'
    ]
    return jax.vmap(run)(jnp.arange(num_tries)) @ canary

  tries = jax.jit(tries)
  return (
    np.asarray(tries(canary, secret_key.new_noise_key(1))),
    np.asarray(tries(jnp.zeros(size), secret_key.new_noise_key(2))),
  )


def test_the_shipped_mechanism_passes_its_audit_and_a_halved_one_fails():
  bound = epsilon_lower_bounds.epsilon_from_gaussian_scores
  sound = bound(*mechanism_scores(SIGMA, 20_000), DELTA)
  assert 0.5 * CLAIMED < sound <= CLAIMED
  assert bound(*mechanism_scores(SIGMA / 2, 4000), DELTA) > CLAIMED


def test_blind_guessing_proves_nothing():
  assert epsilon_lower_bounds.epsilon_one_run(50, 100, 100, DELTA) == 0
  assert epsilon_lower_bounds.epsilon_one_run(0, 0, 100, DELTA) == 0


def test_membership_auc_is_the_chance_that_a_member_scores_higher():
  rng = np.random.default_rng(0)
  members, others = rng.normal(0.5, 1, 60), rng.normal(0, 1, 80)
  result = epsilon_lower_bounds.membership_auc(members, others)
  assert result['auc'] == pytest.approx(np.mean(members[:, None] > others[None]))
  assert result['low'] < result['auc'] < result['high']
  same = epsilon_lower_bounds.membership_auc(np.zeros(10), np.zeros(12))
  assert same['auc'] == 0.5
  assert same['low'] < 0.5 < same['high']
  perfect = epsilon_lower_bounds.membership_auc(np.ones(10), np.zeros(10))
  assert perfect['auc'] == perfect['high'] == 1
  assert 0.5 < perfect['low'] < 1
  assert epsilon_lower_bounds.membership_auc(np.zeros(10), np.ones(10))['low'] == 0


def test_the_auc_interval_covers_the_truth_as_often_as_it_says():
  rng = np.random.default_rng(1)
  truth = 0.638  # Phi(0.5 / sqrt(2))
  covered = 0
  for _ in range(300):
    result = epsilon_lower_bounds.membership_auc(
      rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
    )
    covered += result['low'] <= truth <= result['high']
  assert covered / 300 > 0.92


def test_counts_and_scores_that_make_no_sense_are_refused():
  with pytest.raises(ValueError, match='counts'):
    epsilon_lower_bounds.epsilon_one_run(3, 10, 5, DELTA)
  with pytest.raises(ValueError, match='scores'):
    epsilon_lower_bounds.membership_auc([1.0], [0.0, 1.0])
  with pytest.raises(ValueError, match='scores'):
    epsilon_lower_bounds.membership_auc([1.0, np.nan], [0.0, 1.0])
  with pytest.raises(ValueError, match='scores'):
    epsilon_lower_bounds.epsilon_from_gaussian_scores([1.0, np.nan], [0.0, 1.0], DELTA)


# Coins, and scores that are known to be Gaussian


def test_scores_with_coins_never_exceed_the_truth_and_catch_broken_noise():
  rng = np.random.default_rng(0)
  for seed in range(10):
    included = canaries.coins(1000, seed)
    scores = included + rng.normal(0, SIGMA, 1000)
    assert (
      epsilon_lower_bounds.epsilon_from_coins(scores, included, DELTA, 0.99) <= CLAIMED
    )
  scores = included + rng.normal(0, SIGMA / 5, 1000)
  assert (
    epsilon_lower_bounds.epsilon_from_coins(scores, included, DELTA, 0.99) > CLAIMED
  )


def test_distances_to_samples_are_scores_a_copying_generator_is_caught_by():
  """The link to evaluation.memorisation: minus the distance to the nearest sample."""
  rng = np.random.default_rng(0)
  included = canaries.coins(400, 0)
  patients = rng.normal(size=(400, 6))
  copies = patients[included] + 0.01 * rng.normal(size=(included.sum(), 6))
  fresh = rng.normal(size=(200, 6))
  bounds = [
    epsilon_lower_bounds.epsilon_from_coins(
      -memorisation.nearest(patients, samples)[0], included, DELTA
    )
    for samples in (copies, fresh)
  ]
  assert bounds[0] > 2
  assert bounds[1] == 0


def test_gaussian_scores_bound_the_truth_from_below_and_closely():
  bounds = [
    epsilon_lower_bounds.epsilon_from_gaussian_scores(
      *gaussian_scores(SIGMA, 2000, seed), DELTA, 0.99
    )
    for seed in range(20)
  ]
  assert max(bounds) <= CLAIMED
  assert np.mean(bounds) > 0.6 * CLAIMED
  halved = gaussian_scores(SIGMA / 2, 2000, 0)
  found = epsilon_lower_bounds.epsilon_from_gaussian_scores(*halved, DELTA, 0.99)
  assert found > CLAIMED
  same = np.random.default_rng(0).normal(size=(2, 50))
  assert epsilon_lower_bounds.epsilon_from_gaussian_scores(*same, DELTA) < 0.5
  certain = epsilon_lower_bounds.epsilon_from_gaussian_scores(
    [1.0] * 9, [0.0] * 9, DELTA
  )
  assert certain == np.inf


def test_the_interval_of_a_deviation_covers_it_as_often_as_it_says():
  rng, covered = np.random.default_rng(0), 0
  for _ in range(400):
    found = epsilon_lower_bounds.deviation(rng.normal(0, 2.5, 30), 0.9)
    covered += found['low'] <= 2.5 <= found['high']
  assert 0.86 < covered / 400 < 0.94


def test_coins_and_scores_that_do_not_belong_together_are_refused():
  with pytest.raises(ValueError, match='coins'):
    epsilon_lower_bounds.epsilon_from_coins(np.zeros(5), np.zeros(4, bool), DELTA)
  with pytest.raises(ValueError, match='scores'):
    epsilon_lower_bounds.deviation([np.inf, 1.0])
