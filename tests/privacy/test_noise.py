"""Laws of correlated noise: its covariance, its repetition, its one-band case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
  cells = 2 * float(noise.grid(SIGMA, CLIP_NORM))  # each noisy sum was rounded
  np.testing.assert_allclose(whitened, plain, atol=cells)


@pytest.mark.parametrize('made', [noise.Independent, noise.Correlated])
def test_silence_is_refused(made):
  more = () if made is noise.Independent else (STRATEGY, 5)
  for sigma in (0.0, -1.0, float('nan'), None):
    with pytest.raises(ValueError, match='noise multiplier'):
      made(sigma, *more)
