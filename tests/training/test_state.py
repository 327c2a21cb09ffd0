"""Laws of the train state: the update, its average, names of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.training import state


def test_parameters_survive_being_flattened(params):
  assert state.flatten(state.unflatten(params)) == params
  assert set(state.unflatten(params)) == {'conditioner', 'unet'}


def test_an_update_moves_the_parameters_and_counts_the_step(params):
  optimizer = optax.sgd(0.5)
  before = state.create(params, optimizer)
  after = state.advance(before, jax.tree.map(jnp.ones_like, params), optimizer, 0.9)
  assert int(after.step) == 1
  for path, leaf in params.items():
    np.testing.assert_allclose(after.trained[path], leaf - 0.5, rtol=1e-6)


def test_the_average_follows_at_once_and_slows_down_to_its_decay():
  """Effective decay min(decay, (1 + step) / (10 + step)), by hand."""
  optimizer, decay = optax.sgd(1.0), 0.5
  current, average, value = state.create({'w': jnp.zeros(())}, optimizer), 0.0, 0.0
  for step in range(20):
    current = state.advance(current, {'w': jnp.asarray(-1.0)}, optimizer, decay)
    value += 1.0
    share = min(decay, (1 + step) / (10 + step))
    average = share * average + (1 - share) * value
    assert float(current.ema['w']) == pytest.approx(average, rel=1e-5)


def test_the_average_of_a_constant_is_the_constant(params):
  optimizer = optax.sgd(1.0)
  current = state.create(params, optimizer)
  for _ in range(3):
    zeros = jax.tree.map(jnp.zeros_like, params)
    current = state.advance(current, zeros, optimizer, 0.99)
  for path, leaf in params.items():
    np.testing.assert_allclose(current.ema[path], leaf, rtol=1e-6)


def test_several_averages_are_what_each_decay_alone_would_keep(params):
  optimizer, decays = optax.sgd(0.1), (0.0, 0.3, 0.9)
  together = state.create(params, optimizer, decays)
  alone = [state.create(params, optimizer) for _ in decays]
  for _ in range(4):
    gradient = jax.tree.map(jnp.sin, together.trained)
    together = state.advance(together, gradient, optimizer, decays)
    alone = [
      state.advance(one, gradient, optimizer, decay)
      for one, decay in zip(alone, decays, strict=True)
    ]
  for average, one in zip(together.ema, alone, strict=True):
    jax.tree.map(np.testing.assert_array_equal, average, one.ema)
  # Without decay nothing is averaged.
  jax.tree.map(np.testing.assert_allclose, together.ema[0], together.trained)


def test_a_partition_loses_nothing(params):
  nested = state.unflatten(params)
  trained, frozen = state.partition(nested, lambda path: path.startswith('unet'))
  assert set(trained) == {'unet/attention/b', 'unet/conv/s'}
  assert {**trained, **frozen} == params


def test_a_method_that_trains_nothing_is_refused(params):
  with pytest.raises(ValueError, match=r'adapt\.method.*trains no parameter'):
    state.partition(state.unflatten(params), lambda path: False)
