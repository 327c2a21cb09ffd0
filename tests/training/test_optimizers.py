"""Laws of the optimisers of public trainings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from ldm_jax.training import optimizers
from ldm_jax.training.packing import Packing

SHAPES = {
  'a/kernel': (3, 3, 8, 16),
  'a/bias': (16,),
  'tall/kernel': (500, 64),
  'wide/kernel': (24, 200),
  'large/kernel': (80, 150),
  'narrow/kernel': (4, 16),
  'scale': (),
}


@pytest.fixture(scope='module')
def params():
  rng = np.random.default_rng(0)
  return {
    path: jnp.asarray(rng.normal(size=shape), 'float32')
    for path, shape in SHAPES.items()
  }


def _updates(optimizer, packing, params, gradients):
  packed = packing.pack(params)
  state, update = optimizer.init(packed), jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(packing.pack(gradient), state, packed)
  return packing.unpack(updates)


def test_muon_moves_each_matrix_as_that_of_optax_and_the_rest_as_adam(params):
  packing = Packing(params)
  gradients = [
    jax.tree.map(lambda value, k=k: 1e-3 * jnp.cos(k * value), params)
    for k in (7, 11, 13)
  ]
  found = _updates(optimizers.muon(1e-2, packing), packing, params, gradients)
  adam = optax.adam(1e-2, nesterov=True)
  muon = contrib.muon(1e-2, consistent_rms=optimizers.ADAMS_SCALE)
  for path, value in params.items():
    is_matrix = any(
      p.path == path for places in packing.places.values() for p in places
    )
    peer = muon if is_matrix else adam
    shape = (-1, value.shape[-1]) if is_matrix else value.shape
    arrange = lambda flat, path=path, shape=shape: {'m': flat[path].reshape(shape)}
    state = peer.init(arrange(params))
    for gradient in gradients:
      expected, state = peer.update(arrange(gradient), state, arrange(params))
    np.testing.assert_allclose(
      found[path].reshape(shape), expected['m'], rtol=2e-3, atol=2e-6, err_msg=path
    )


def test_an_update_by_muon_has_the_same_size_in_all_directions():
  gradient = {'m': jnp.diag(jnp.logspace(-2, 0, 16))}
  packing = Packing(gradient)
  updates = _updates(optimizers.muon(1.0, packing), packing, gradient, [gradient])
  sizes = np.linalg.svd(np.asarray(updates['m']), compute_uv=False)
  assert sizes.max() / sizes.min() < 3  # of the gradient: 100


def test_what_fills_the_blocks_up_stays_zero(params):
  packing = Packing(params)
  optimizer = optimizers.muon(1e-2, packing)
  gradient = packing.pack(jax.tree.map(jnp.cos, params))
  updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
  again = packing.pack(packing.unpack(updates))
  jax.tree.map(np.testing.assert_array_equal, updates, again)


def test_the_named_optimiser_starts_softly_and_ends_at_a_twentieth():
  params = {'m': jnp.eye(16)}
  packing = Packing(params)
  for name in ('adam', 'muon'):
    optimizer = optimizers.public(name, packing, 1.0, 200, warm_up=10)
    packed = packing.pack(params)
    state, sizes = optimizer.init(packed), []
    update = jax.jit(optimizer.update)
    for _ in range(200):
      updates, state = update(packed, state, packed)
      sizes.append(max(float(jnp.abs(leaf).max()) for leaf in updates.values()))
    assert sizes[0] < 0.2 * max(sizes)
    assert 0.03 < sizes[-1] / max(sizes) < 0.08
