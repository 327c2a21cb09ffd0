"""Laws of cross-attention guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.synthesis.editors import pix2pix_zero
from ldm_jax.synthesis.editors.setting import Setting

SHAPE = (2, 6, 6, 3)
Z = np.random.default_rng(2).normal(size=(2, *SHAPE)).astype(np.float32)
OWN = np.array([[0.1, 1], [-0.5, 0]], np.float32)
NEW = np.array([[-0.9, 0], [0.8, 1]], np.float32)


def network(by=('attention', 'embedding'), remat=False):
  """apply_denoiser and parameters, none of them zero, of a UNet with one attention."""
  module = ConditionalDenoiser(
    (0, 2),
    3,
    3,
    conditioner_kwargs={'width': 8, 'num_heads': 2},
    unet_kwargs={
      'channels': (8,),
      'kernels': (1, 3, 3),
      'attention_levels': (False,),
      'num_head_channels': 4,
      'norm_groups': 4,
      'remat': remat,
    },
    by=by,
  )
  t, drop = jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
  shapes = jax.eval_shape(module.init, jax.random.key(0), Z, t, OWN, drop)
  rng = np.random.default_rng(5)
  params = jax.tree.map(
    lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes['params']
  )

  def apply(params, z_t, t, attributes, drop, mutable=False):
    return module.apply({'params': params}, z_t, t, attributes, drop, mutable=mutable)

  return apply, params


def setting(world, apply, **options):
  return Setting(apply, world.schedule, 6, **options)


def test_recording_maps_changes_no_number_and_gives_shares_of_the_tokens():
  apply, params = network(remat=True)
  arguments = params, Z, jnp.full(2, 50), OWN, jnp.zeros(2, bool)
  output, sown = jax.jit(lambda *a: apply(*a, mutable=['intermediates']))(*arguments)
  np.testing.assert_array_equal(output, jax.jit(apply)(*arguments))
  (maps,) = jax.tree.leaves(sown)
  # (b, heads, voxels, tokens) of the one layer that reads the condition.
  assert maps.shape == (2, 2, 72, 2)
  np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)


def test_a_step_down_the_gradient_brings_the_maps_nearer_and_a_null_edit_has_none(
  world,
):
  apply, params = network()
  chosen = setting(world, apply, drift=0.3)

  @jax.jit
  def distances(z, weight):
    reference = pix2pix_zero.maps_of(chosen, params, OWN)(z, 50)
    same = pix2pix_zero.maps_of(chosen, params, OWN)
    other = pix2pix_zero.maps_of(chosen, params, NEW)
    far = lambda z: pix2pix_zero.map_distance(other(z, 50), reference)
    null = jax.grad(lambda z: pix2pix_zero.map_distance(same(z, 50), reference))(z)
    return far(z), far(z - weight * jax.grad(far)(z)), jnp.abs(null).max()

  before, after, null = distances(Z, 0.02)
  assert 0 < after < before
  assert null < 1e-6


def test_a_network_without_cross_attention_is_refused_with_what_to_set(world):
  apply, params = network(by=('embedding',))
  maps = pix2pix_zero.maps_of(setting(world, apply), params, OWN)
  with pytest.raises(ValueError, match=r"conditioner\.by.*editor='ddim'"):
    jax.eval_shape(maps, Z, 50)
