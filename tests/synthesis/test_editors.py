"""Laws that all editors share, and what tells them apart."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conditional import ConditionalDenoiser
from ldm_jax.synthesis import editors, pix2pix_zero

INVERTING = ('ddim', 'ddpm', 'pix2pix_zero')
DELTA = np.array([0.1, -0.1, 0.2])


@pytest.fixture(scope='module')
def attentive(world):
  """The world with a real network, which has cross-attention and no zero weights."""
  module = ConditionalDenoiser(
    (0, 2),
    3,
    3,
    conditioner_kwargs={'width': 8, 'num_heads': 2},
    unet_kwargs={
      'channels': (8,),
      'kernels': ((1, 3, 3),),
      'strides': (),
      'num_res_blocks': 1,
      'attention_levels': (False,),
      'num_head_channels': 8,
      'norm_groups': 4,
      'remat': True,
    },
  )
  z, t = jnp.zeros((1, *world.shape)), jnp.zeros(1, jnp.int32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), z, t, jnp.zeros((1, 2)))
  rng = np.random.default_rng(5)
  params = jax.tree.map(
    lambda x: rng.normal(0, 0.35, x.shape).astype(np.float32), shapes['params']
  )

  def apply(params, z_t, t, attributes, drop, mutable=False):
    return module.apply({'params': params}, z_t, t, attributes, drop, mutable=mutable)

  return types.SimpleNamespace(
    **{**vars(world), 'apply_denoiser': apply, 'params': params}
  )


@functools.lru_cache
def editor(apply_denoiser, schedule_id, name, drift=None, own=(), **options):
  raise AssertionError('never called')


def make(world, name, num_steps=8, own=None, **options):
  if options.get('drift') is True:
    options['drift'] = DELTA
  setting = editors.Setting(
    world.apply_denoiser, world.schedule, num_steps, **world.latents, **options
  )
  return editors.make(name, setting, **(own or {}))


def latents(world):
  return np.random.default_rng(2).normal(size=(3, *world.shape)).astype(np.float32)


def other(world):
  return np.where(np.isnan(world.attributes), 1.0, 1 - world.attributes).astype('f4')
