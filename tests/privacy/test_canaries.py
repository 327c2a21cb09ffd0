"""Laws of the canaries: who takes part, what their coordinates show, what is claimed.

The steps of training with canaries in them are in test_broken.py.
"""

import numpy as np
import pytest

from ldm_jax.privacy import banded_matrix, canaries, clipping

BANDED = {'num_bands': 3, 'strategy': (0.8, 0.48, 0.36)}


def test_canaries_are_the_first_patients_scans_with_numbers_of_their_own():
  patients = {'x': np.arange(6.0).reshape(3, 2)}
  rows = canaries.appended(patients, 4)
  np.testing.assert_array_equal(rows['x'][:3], patients['x'])
  np.testing.assert_array_equal(rows['x'][3:], np.repeat(patients['x'][:1], 4, 0))
  assert rows[canaries.LEAF].tolist() == [canaries.NOBODY] * 3 + [0, 1, 2, 3]


def test_coins_are_fair_and_follow_the_seed():
  thrown = canaries.coins(40_000, 1)
  assert abs(thrown.mean() - 0.5) < 5 * 0.5 / 200
  np.testing.assert_array_equal(thrown, canaries.coins(40_000, 1))
  assert (thrown != canaries.coins(40_000, 2)).mean() > 0.4


def test_the_contrast_cancels_noise_that_comes_back():
  by_turn = np.tile([[3.0, -2.0]], (6, 1))
  by_turn[::2] += 1  # the turns in which the canaries were drawn
  found = canaries.scores(by_turn)
  np.testing.assert_allclose(found['contrast'], 1)
  np.testing.assert_allclose(found['sum'], [4, -1])


@pytest.mark.parametrize(('true', 'exceeds'), [(2.0, False), (0.7, True)])
def test_a_report_exceeds_the_claim_only_where_there_is_less_noise(true, exceeds):
  rng, times, included = np.random.default_rng(0), 6, canaries.coins(400, 0)
  updates = true * rng.normal(size=(2 * times, 800))
  updates[::2, :400] += included
  found = canaries.report(updates, included, 2.0, 1e-5)
  assert (found['epsilon_low'] > found['epsilon_claimed']) == exceeds
  assert found['noise']['low'] <= true <= found['noise']['high']
  assert found['participations'] == times and found['canaries'] == 400


def test_turns_of_a_banded_run_are_ones_with_independent_noise():
  """In exact arithmetic: what is pushed at a turn comes back as 1, all else as 0."""
  bands, strategy = BANDED['num_bands'], BANDED['strategy']
  for taken, steps in ((12, 12), (12, 13), (12, 400)):
    pushed = np.zeros((taken, 2))
    pushed[[0, 6], 0] = 1.0
    inverse = np.linalg.inv(banded_matrix.matrix(strategy, steps)[:taken, :taken])
    found, _ = canaries.turns(pushed, strategy, steps)
    np.testing.assert_allclose(found, [[1, 0], [0, 0], [1, 0], [0, 0]], atol=1e-12)
    taps, whitened = canaries.turns(inverse, strategy, steps)
    np.testing.assert_allclose(whitened, np.eye(taken), atol=1e-12)
    np.testing.assert_allclose(taps @ taps.T, np.eye(taken // bands), atol=1e-12)


def test_updates_of_a_turn_cut_short_are_refused():
  for taken, steps in ((10, 12), (12, 11)):
    with pytest.raises(ValueError, match='whole turns'):
      canaries.turns(np.zeros((taken, 1)), BANDED['strategy'], steps)


def test_a_canary_pushes_beyond_every_adaptive_clip_norm():
  assert canaries.PUSH > clipping.RANGE
