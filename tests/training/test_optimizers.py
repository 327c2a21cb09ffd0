"""Laws of the optimisers of public trainings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from ldm_jax.training import optimizers


def _parameters():
  shapes = {
    'a/kernel': (3, 3, 8, 16),
    'a/bias': (16,),
    'b/kernel': (72, 16),
    'narrow/kernel': (4, 16),
    'scale': (),
  }
  rng = np.random.default_rng(0)
  return {
    path: jnp.asarray(rng.normal(size=shape), 'float32')
    for path, shape in shapes.items()
  }


def test_stacks_hold_matrices_of_one_shape_and_unstack_returns_every_parameter():
  params = _parameters()
  stacked = optimizers.stack(params)
  assert {name: value.shape for name, value in stacked.items()} == {
    '72 x 16': (2, 72, 16),
    'rest': (16 + 64 + 1,),
  }
  returned = optimizers.unstack(stacked, params)
  assert list(returned) == list(params)
  for path, value in params.items():
    np.testing.assert_array_equal(returned[path], value)


def test_stacked_muon_moves_each_matrix_as_muon_alone_does():
  params = _parameters()
  gradient = jax.tree.map(lambda value: 1e-3 * jnp.cos(7 * value), params)
  optimizer = optimizers.muon(1e-2)
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  alone = contrib.muon(1e-2, consistent_rms=optimizers.ADAMS_SCALE)
  for path in ('a/kernel', 'b/kernel'):
    matrix = {'m': params[path].reshape(72, 16)}
    g = {'m': gradient[path].reshape(72, 16)}
    expected, _ = alone.update(g, alone.init(matrix), matrix)
    np.testing.assert_allclose(
      updates[path].reshape(72, 16), expected['m'], rtol=1e-3, atol=1e-6
    )
  adam = optax.adam(1e-2, nesterov=True)
  expected, _ = adam.update(gradient, adam.init(params), params)
  for path in ('a/bias', 'narrow/kernel', 'scale'):
    np.testing.assert_allclose(updates[path], expected[path], rtol=1e-4, atol=1e-8)


def test_an_update_by_muon_has_the_same_size_in_all_directions():
  gradient = {'m': jnp.diag(jnp.logspace(-2, 0, 16))}
  optimizer = optimizers.muon(1.0)
  updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
  sizes = np.linalg.svd(np.asarray(updates['m']), compute_uv=False)
  assert sizes.max() / sizes.min() < 3  # of the gradient: 100


def test_the_named_optimiser_starts_softly_and_ends_at_a_twentieth():
  params = {'m': jnp.eye(16)}
  for name in ('adam', 'muon'):
    optimizer = optimizers.public(name, 1.0, 200, warm_up=10)
    state, sizes = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for _ in range(200):
      updates, state = update({'m': jnp.eye(16)}, state, params)
      sizes.append(float(jnp.abs(updates['m']).max()))
    assert sizes[0] < 0.2 * max(sizes)
    assert 0.03 < sizes[-1] / max(sizes) < 0.08
