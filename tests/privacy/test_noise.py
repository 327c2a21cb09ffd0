"""Laws of correlated noise: its covariance, its repetition, its one-band case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_privacy.matrix_factorization import sensitivity

from ldm_jax.privacy import banded_matrix, noise, secret_key

STRATEGY = (0.8, 0.48, 0.36)
KEY = secret_key.new_noise_key(0)
SIGMA, CLIP_NORM = 1.3, 0.5


def run(made, size, steps, key=KEY):
  """The noise of all steps on zero sums, (steps, size), split over two leaves."""
  zeros = {'a': jnp.zeros(size // 2), 'b': jnp.zeros((2, (size - size // 2) // 2))}
  add = jax.jit(lambda memory, step: made.add(zeros, memory, key, step, CLIP_NORM))
  memory, found = made.start(zeros), []
  for step in range(steps):
    noisy, memory = add(memory, jnp.int32(step))
    found.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(noisy)]))
  return np.stack(found)


def test_correlated_noise_has_the_covariance_of_its_strategy():
  steps, size = 7, 200_000
  drawn = run(noise.Correlated(SIGMA, STRATEGY, steps), size, steps)
  inverse = np.linalg.inv(banded_matrix.matrix(STRATEGY, steps))
  expected = (SIGMA * CLIP_NORM) ** 2 * inverse @ inverse.T
  deviation = np.sqrt(np.diag(expected))
  found = drawn @ drawn.T / size
  assert np.abs((found - expected) / np.outer(deviation, deviation)).max() < 0.015
  assert np.abs(expected - np.diag(np.diag(expected))).max() > 0.1 * expected.max()


def test_multiplied_by_the_strategy_the_noise_is_the_independent_one():
  steps, size = 9, 40
  drawn = run(noise.Correlated(SIGMA, STRATEGY, steps), size, steps)
  plain = run(noise.Independent(SIGMA), size, steps)
  whitened = banded_matrix.matrix(STRATEGY, steps) @ drawn
  np.testing.assert_allclose(whitened, plain, atol=1e-5)


@pytest.mark.parametrize('made', [noise.Independent, noise.Correlated])
def test_silence_is_refused(made):
  more = () if made is noise.Independent else (STRATEGY, 5)
  for sigma in (0.0, -1.0, float('nan'), None):
    with pytest.raises(ValueError, match='noise multiplier'):
      made(sigma, *more)


def test_what_was_lost_is_computed_again_from_the_first_step():
  """Memory counts steps here: what `again` is asked for is what it adds."""
  calls = []

  def again(memory, step):
    calls.append(step)
    return (*memory, step)

  replay, start = noise.Replay(), lambda: ()
  assert replay.before(3, KEY, start, again) == (0, 1, 2)
  replay.keep(4, KEY, (0, 1, 2, 3))
  calls.clear()
  assert replay.before(4, KEY, start, again) == (0, 1, 2, 3) and not calls
  assert replay.before(2, KEY, start, again) == (0, 1)  # it was handed out
  replay.keep(4, KEY, (0, 1, 2, 3))
  assert replay.before(6, KEY, start, again) == tuple(range(6))
  replay.keep(6, KEY, tuple(range(6)))
  assert replay.before(2, KEY, start, again) == (0, 1)
  replay.keep(2, KEY, (0, 1))
  calls.clear()
  replay.before(2, secret_key.new_noise_key(1), start, again)
  assert calls == [0, 1], "another key's memory was used"
  assert 'secret' in repr(replay)


# The strategy


@pytest.mark.parametrize('coefficients', [(1.0,), (0.8, 0.6), STRATEGY])
@pytest.mark.parametrize('steps', [3, 8])
def test_a_strategy_moves_by_one_for_a_patient_of_every_bth_step(coefficients, steps):
  banded_matrix.check(coefficients, steps)
  found = banded_matrix.matrix(coefficients, steps)
  np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-12)
  bands = len(coefficients)
  for first in range(bands):  # steps of one patient: blocks without a common row
    columns = found[:, first::bands] != 0
    assert columns.sum(axis=1).max() <= 1
  one = sensitivity.get_sensitivity_banded(jnp.asarray(found), bands, 1)
  assert one == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
  ('coefficients', 'words'),
  [
    ((0.0, 1.0), 'inverse'),
    ((1.0, float('nan')), 'finite'),
    ((0.5,) * 9, 'finite'),
    ((), 'finite'),
  ],
)
def test_a_strategy_that_is_none_is_refused(coefficients, words):
  with pytest.raises(ValueError, match=words):
    banded_matrix.check(coefficients, 8)


def test_the_check_finds_columns_that_are_too_long(monkeypatch):
  longer = banded_matrix.matrix
  monkeypatch.setattr(banded_matrix, 'matrix', lambda *a: 1.001 * longer(*a))
  with pytest.raises(ValueError, match=r'norms 1\.001'):
    banded_matrix.check(STRATEGY, 8)


def test_the_best_strategy_errs_less_than_independent_noise():
  found = banded_matrix.optimal(12, 3)
  assert np.sum(np.square(found)) == pytest.approx(1, abs=1e-12)
  banded_matrix.check(found, 12)
  errors = [banded_matrix.mean_error(c, 12) for c in (found, STRATEGY, (1.0,))]
  assert errors[0] < errors[2] and errors[0] <= errors[1] * 1.01
  assert banded_matrix.mean_error((1.0,), 12) == pytest.approx(np.sqrt(6.5))
  assert banded_matrix.optimal(12, 1) == (1.0,)
  with pytest.raises(ValueError, match=r'adapt\.privacy\.num_bands'):
    banded_matrix.optimal(3, 4)
