"""A small conditional world: a denoiser that follows attributes, an autoencoder."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import schedules
from ldm_jax.synthesis.system import System

SHAPE = (2, 4, 4, 3)


def apply_denoiser(params, z_t, t, attributes, drop):
  """Nonlinear in z, steered by the attributes; missing counts as zero."""
  condition = jnp.where(jnp.isnan(attributes), 0.0, attributes)
  condition = jnp.where(drop[:, None], params['null'], condition)
  shift = jnp.tanh(condition @ params['w'])[:, None, None, None]
  near = jnp.roll(z_t, 1, axis=2)
  return (
    0.5 * jnp.tanh(z_t - shift)
    + 0.2 * near
    + 0.1 * jnp.sin(t / 10.0).reshape(-1, 1, 1, 1, 1)
  )


def encode(x):
  """(b,2,8,8,1) -> (b,2,4,4,3), loses detail."""
  b, d, h, w, _ = x.shape
  pooled = x.reshape(b, d, h // 2, 2, w // 2, 2).mean((3, 5))
  return pooled[..., None] * jnp.array([4.0, -2.0, 1.0]) + 1.0


def decode(z):
  pooled = ((z - 1.0) / jnp.array([4.0, -2.0, 1.0])).mean(-1, keepdims=True)
  return pooled.repeat(2, axis=2).repeat(2, axis=3)


@pytest.fixture(scope='session')
def world():
  w = jax.random.normal(jax.random.key(7), (2, 3))
  return types.SimpleNamespace(
    apply_denoiser=apply_denoiser,
    encode=jax.jit(encode),
    decode=jax.jit(decode),
    params={'w': w, 'null': jnp.array([0.3, -0.4])},
    schedule=schedules.schedule('linear', 150, 1e-4, 7e-2),
    shape=SHAPE,
    volumes=np.random.default_rng(0).random((3, 2, 8, 8, 1)).astype(np.float32),
    attributes=np.array([[0.1, 1], [-0.5, 0], [0.9, np.nan]], np.float32),
    latents={
      'latent_mean': np.array([1.5, 0.0, 1.2], np.float32),
      'latent_std': np.array([2.0, 1.0, 0.5], np.float32),
    },
  )


@pytest.fixture(scope='session')
def system_of(world):
  """(schema, **params) -> a fitted system made of the world's networks."""

  def make(schema, **params):
    return System(
      schema=schema,
      params={'null': np.zeros(len(schema), np.float32), **params},
      apply_denoiser=world.apply_denoiser,
      encode=world.encode,
      decode=world.decode,
      latent_shape=world.shape,
      statistics=world.latents,
      schedule=world.schedule,
      prediction='epsilon',
      drift=None,
      name='untrained',
    )

  return make
