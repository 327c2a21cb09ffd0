"""How codebooks learn: averages reach the means, dead codes come back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.models.autoencoders.quantizer import Quantizer
from ldm_jax.training import codebook

CENTRES = np.array([[0, 0], [5, 0], [0, 5], [5, 5]], np.float32)
MODULE = Quantizer(num_codes=8, features=2)


def batch(step):
  rng = np.random.default_rng((1, step))
  which = rng.integers(4, size=(3, 20))
  return CENTRES[which] + rng.normal(scale=0.1, size=(3, 20, 2)).astype(np.float32)


def learn(learned_by, params, num_steps=150, revive_below=0.1, decay=0.9):
  learner = optax.adam(0.1) if learned_by == 'gradient' else None
  optimizer = codebook.optimizer(learner, decay, revive_below)
  flat = {f'quantizer/{name}': leaf for name, leaf in params.items()}
  state = optimizer.init(flat)

  @jax.jit
  def step(flat, state, z, picked, keys):
    def loss(flat):
      params = {name.split('/')[1]: leaf for name, leaf in flat.items()}
      found = MODULE.apply(
        {'params': params}, z, picked, keys, learned_by, method='losses'
      )
      return found['codebook'].mean()

    updates, state = optimizer.update(jax.grad(loss)(flat), state, flat)
    return optax.apply_updates(flat, updates), state

  for i in range(num_steps):
    keys = jax.random.split(jax.random.key(i), 3)
    flat, state = step(flat, state, batch(i), codebook.picks(3, 8, i), keys)
  return flat


@pytest.fixture(scope='module')
def params():
  return MODULE.init(jax.random.key(0), batch(0))['params']


@pytest.mark.parametrize('learned_by', codebook.LEARNED_BY)
def test_the_codes_reach_the_centres_of_what_they_stand_for(learned_by, params):
  # From far away: without revival one code would take everything.
  far = {**params, 'codebook': params['codebook'] + 100}
  found = learn(learned_by, far)
  codes = np.asarray(found['quantizer/codebook'])
  nearest = np.linalg.norm(codes[:, None] - CENTRES, axis=-1).min(0)
  assert nearest.max() < 0.4, codes


def test_without_revival_a_far_codebook_stays_dead(params):
  far = {**params, 'codebook': params['codebook'] + 100, 'usage': jnp.full(8, 1 / 8)}
  usage = learn('averages', far, num_steps=60, revive_below=0.0)['quantizer/usage']
  assert (np.asarray(usage) > 0.01).sum() == 1


def test_the_averages_are_those_of_the_batches(params):
  # Four codes at the centres, four where nothing is.
  codes = jnp.concatenate([CENTRES, CENTRES + 100])
  still = {**params, 'usage': jnp.full(8, 0.25), 'codebook': codes}
  found = learn('averages', still, num_steps=2, decay=0.5, revive_below=0.0)
  for code, centre in enumerate(CENTRES):
    sums, counts = 0.25 * centre, 0.25
    for i in range(2):
      z = batch(i).reshape(-1, 2)
      mine = np.abs(z - centre).max(1) < 1
      sums = 0.5 * sums + 0.5 * z[mine].sum(0) / len(z)
      counts = 0.5 * counts + 0.5 * mine.mean()
    np.testing.assert_allclose(found['quantizer/usage'][code], counts, rtol=1e-5)
    np.testing.assert_allclose(
      found['quantizer/codebook'][code], sums / counts, atol=1e-4
    )


def test_one_example_of_the_global_batch_offers_each_candidate():
  picked = codebook.picks(6, 50, 3, 4)
  assert picked.shape == (6, 50)
  np.testing.assert_array_equal((picked > 0).sum(0), 1)
  np.testing.assert_array_equal(picked.mean(0), 1)
  assert (picked > 0).any(1).all()
  np.testing.assert_array_equal(picked, codebook.picks(6, 50, 3, 4))
  assert (picked != codebook.picks(6, 50, 3, 5)).any()


def test_usage_statistics_count_codes():
  found = codebook.usage_statistics(np.array([[0, 1], [1, 0], [7, 7]]), 8)
  assert found['codes'] == 8 and found['used'] == 3
  assert found['perplexity'] == pytest.approx(3)
