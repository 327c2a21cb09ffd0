"""A model of three arrays, whose losses are cheap and whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.training import state

NUM_PATIENTS = 12


@pytest.fixture
def params():
  """Fresh parameters: train steps donate what they are given."""
  rng = np.random.default_rng(0)
  return {
    'conditioner/w': jnp.asarray(rng.normal(size=(8, 4)), jnp.float32),
    'unet/attention/b': jnp.asarray(rng.normal(size=(4,)), jnp.float32),
    'unet/conv/s': jnp.asarray(0.5, jnp.float32),
  }


@pytest.fixture
def patients():
  """Examples of 12 patients: {'x' (12,8), 'y' (12,4)}."""
  rng = np.random.default_rng(1)
  return {
    'x': rng.normal(size=(NUM_PATIENTS, 8)).astype(np.float32),
    'y': rng.normal(size=(NUM_PATIENTS, 4)).astype(np.float32),
  }


def patient_loss(trained, frozen, example, key):
  """Squared error of one example, with noise from its key: -> ()."""
  p = {**frozen, **trained}
  eps = 0.1 * jax.random.normal(key, (4,))
  y_hat = p['unet/conv/s'] * (example['x'] @ p['conditioner/w'] + p['unet/attention/b'])
  return jnp.mean(jnp.square(y_hat + eps - example['y']))


def example_losses(trained, frozen, batch, keys, step):
  """The same for `training.plain_step`: -> (b,), no metrics."""
  del step
  losses = jax.vmap(lambda example, key: patient_loss(trained, frozen, example, key))
  return losses(batch, keys), {}


@pytest.fixture
def toy():
  """(patient_loss, example_losses)."""
  return patient_loss, example_losses


def max_difference(one, other):
  """Largest absolute difference between two trees of one structure."""
  leaves = jax.tree.leaves(
    jax.tree.map(
      lambda a, b: np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b))), one, other
    )
  )
  return max(leaves)


@pytest.fixture
def difference():
  return max_difference


@pytest.fixture
def start():
  """(params, optimizer, mesh) -> a TrainState of its own, placed on the mesh."""
  from ldm_jax.training.mesh import put_state

  def create(params, optimizer, mesh):
    own = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    return put_state(mesh, state.create(own, optimizer))

  return create
