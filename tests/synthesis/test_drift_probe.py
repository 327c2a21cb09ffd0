"""Laws of the probe of a network under drifts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.synthesis.drift_probe import Probe, fine_tuned, losses_of

GRID = (-0.2, 0.0, 0.2)
SHAPE = (2, 3, 2)
RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(4, *SHAPE)).astype(np.float32)
CONDITIONS = RNG.normal(size=(4, 1)).astype(np.float32)


class Linear(nn.Module):
  """The least network that has a parameter and reads its condition."""

  @nn.compact
  def __call__(self, z_t, t, conditions, drop):
    scale = self.param('scale', nn.initializers.constant(0.5), (z_t.shape[-1],))
    told = jnp.where(drop[:, None], 0.0, conditions).sum(1)
    return scale * z_t + 0.1 * told.reshape(-1, *[1] * (z_t.ndim - 1))


@pytest.fixture(scope='module')
def probe():
  config = override(
    defaults(),
    {
      'adapt.drift.grid': GRID,
      'adapt.drift.num_samples': 3,
      'adapt.drift.num_draws': 2,
      'adapt.batch_size': 2,
      'sample.steps': 2,
    },
  )
  params = {'scale': jnp.full(2, 0.5)}
  return Probe(config, Linear(), params, jax.random.key(0))


def test_a_patients_losses_do_not_depend_on_the_other_patients(probe):
  examples = {
    'z': LATENTS[:, None],
    'attributes': CONDITIONS[:, None],
    'present': np.ones((4, 1), bool),
  }
  found = probe.losses(list('abcd'), examples)
  assert found.shape == (4, 3)
  some = {name: leaf[[2, 0]] for name, leaf in examples.items()}
  np.testing.assert_allclose(probe.losses(['c', 'a'], some), found[[2, 0]], rtol=1e-5)
  assert np.abs(probe.losses(['x', 'a'], some)[0] - found[2]).max() > 1e-4


def test_the_requests_are_evenly_spaced_rows(probe):
  rows, keys = probe.requests(CONDITIONS)
  np.testing.assert_array_equal(rows, CONDITIONS[[0, 2, 3]])
  assert keys.shape == (3,)


def test_the_gain_of_a_linear_network_predicts_its_mean_under_a_drift(probe):
  mean, gain = probe.movement(SHAPE, CONDITIONS)
  rows, keys = probe.requests(CONDITIONS)
  drift = np.array([0.1, -0.05], np.float32)
  moved = probe.sampler(SHAPE)(probe.params, rows, keys, drift).mean((0, 1, 2))
  np.testing.assert_allclose(moved, mean + gain @ drift, atol=1e-4)


def test_the_nearest_drift_is_the_one_that_made_the_target(probe):
  rows, keys = probe.requests(CONDITIONS)
  target = probe.sampler(SHAPE)(probe.params, rows, keys, 0.2)
  distances = probe.distances(np.asarray(target), np.asarray(rows), 0)
  assert np.argmin(distances) == GRID.index(0.2) and distances.min() < 1e-5


def test_fine_tuning_lowers_the_loss_that_it_trains(probe):
  batches = {
    'z': jnp.stack([LATENTS] * 20),
    'attributes': jnp.stack([CONDITIONS] * 20),
  }
  config = override(probe.config, {'adapt.learning_rate': 0.05})
  keys = jax.random.split(jax.random.key(1), (20, 4))
  tuned = fine_tuned(config, probe.module, probe.params, batches, keys, 0.1)
  losses = losses_of(config, probe.module, 0.1)
  before, after = (
    losses(params, LATENTS, CONDITIONS, keys[0]).mean()
    for params in (probe.params, tuned)
  )
  assert after < before
