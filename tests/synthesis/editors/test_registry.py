"""Laws that all editors share, and what tells them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.synthesis.editors import registry
from ldm_jax.synthesis.editors.setting import Setting

# 'pairs' needs a model trained on pairs: test_instruct_pix2pix.
NAMES = [name for name in registry.EDITORS if name != 'pairs']
INVERTING = ('ddim', 'ddpm', 'pix2pix_zero')
DELTA = np.array([0.1, -0.1, 0.2])
SHAPE = (2, 4, 4, 3)
Z = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
KEEP = np.zeros((3, 2, 4, 4, 1), bool)
KEEP[:, :, :2] = True
NEW = np.array([[-0.6, 1], [-0.5, 1], [0.9, np.nan]], np.float32)


def attentive():
  """apply_denoiser and params of a small network that has cross-attention."""
  module = ConditionalDenoiser(
    (0, 2),
    3,
    3,
    kind='dit',
    conditioner_kwargs={'width': 8, 'num_heads': 2},
    unet_kwargs={'width': 8, 'num_blocks': 1, 'num_head_channels': 4, 'remat': True},
  )
  z, t = jnp.zeros((1, *SHAPE)), jnp.zeros(1, jnp.int32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), z, t, jnp.zeros((1, 2)))
  rng = np.random.default_rng(5)
  # No weight is zero, as some are before training.
  params = jax.tree.map(
    lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes['params']
  )

  def apply(params, z_t, t, attributes, drop, mutable=False):
    return module.apply({'params': params}, z_t, t, attributes, drop, mutable=mutable)

  return apply, params


@pytest.fixture(scope='module')
def results(world):
  """Per editor: null and changed latents, with drift, guidance and a mask of cells."""
  found = {}
  for name in NAMES:
    apply, params = world.apply_denoiser, world.params
    if name == 'pix2pix_zero':
      apply, params = attentive()
    setting = Setting(
      apply, world.schedule, 6, drift=DELTA, guidance=2.0, **world.latents
    )
    edit = registry.make(name, setting)
    found[name] = {
      case: np.asarray(edit(params, Z, world.attributes, new, mask))
      for case, new, mask in (
        ('null', world.attributes, KEEP & False),
        ('changed', NEW, KEEP & False),
        ('masked', NEW, KEEP),
      )
    }
  return found


@pytest.mark.parametrize('name', INVERTING)
def test_a_null_intervention_returns_the_source_whatever_the_network(results, name):
  np.testing.assert_allclose(results[name]['null'], Z, atol=2e-3)


def test_sdedit_changes_the_source_even_where_nothing_is_asked(results):
  assert np.abs(results['sdedit']['null'] - Z).mean() > 0.05


@pytest.mark.parametrize('name', NAMES)
def test_an_editor_changes_what_is_not_kept_and_nothing_else(results, name):
  kept = np.broadcast_to(KEEP, Z.shape)
  masked = results[name]['masked']
  np.testing.assert_allclose(masked[kept], Z[kept], atol=1e-5)
  assert np.abs(masked - Z)[~kept].mean() > 0.01
  assert np.abs(results[name]['changed'] - Z)[kept].mean() > 0.01
  assert np.isfinite(masked).all()


def test_an_example_changes_only_by_its_own_request(results, world):
  """NEW asks nothing of the last example."""
  for name in INVERTING:
    np.testing.assert_allclose(results[name]['changed'][2], Z[2], atol=2e-3)
    assert np.abs(results[name]['changed'][:2] - Z[:2]).mean() > 0.01


def test_an_unknown_editor_is_refused_with_the_known_ones(world):
  setting = Setting(world.apply_denoiser, world.schedule, 6)
  with pytest.raises(ValueError, match='ddim, ddpm'):
    registry.make('ddmi', setting)
