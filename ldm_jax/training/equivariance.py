"""Latents that turn and scale with their volumes, for the training of the autoencoder.

[Kouzelis25] EQ-VAE, arXiv 2502.09509: of some examples the decoder gets the latent
turned and scaled and is to return the volume turned and scaled alike. Neighbouring
latents then belong to neighbouring volumes, and the denoiser needs fewer steps. The
decoder loses sharpness by it, so the last steps train the decoder alone, on latents as
they are (docs/recipe.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.ndimage import map_coordinates

from ldm_jax.training.packing import Packing
from ldm_jax.types import Array, Config

DECODER = 'decoder/', 'post_quant_conv/'
# Apart from the draws that the loss makes with the same keys.
STREAM = 1


def is_used(section: Config) -> bool:
  """Whether `config.autoencoder` asks for it; codes cannot be turned."""
  return bool(section.equivariance.share and not section.model.num_codes)


def num_steps(section: Config) -> int:
  """Steps of `config.autoencoder` before the decoder is trained alone."""
  return round(section.equivariance.until * section.steps)


def transform(
  x: Array, z: Array, keys: Array, section: Config, is_on: Array | bool = True
) -> tuple[jax.Array, jax.Array]:
  """Turns and scales some examples about the axis d, volumes and latents alike.

  Args:
    x: (b,d,h,w,c) volumes.
    z: (b,d',h',w',c') their latents, on a grid of the same extent.
    keys: (b,), one for each example.
    section: config.autoencoder.equivariance.
    is_on: scalar; where False nothing moves.

  Returns:
    Both, linearly interpolated, with edges continued; what is not drawn is unchanged.
  """
  share = jnp.where(is_on, section.share, 0.0)
  matrices = jax.vmap(lambda key: _matrix(key, share, section))(keys)
  return _warp(x, matrices, x.shape[2:4]), _warp(z, matrices, x.shape[2:4])


class State(NamedTuple):
  """Number of updates so far."""

  num_updates: jax.Array


def decoder_alone(packing: Packing, first: int) -> optax.GradientTransformation:
  """Lets updates of packed parameters pass; from the step `first` only the decoder's.

  It stands behind the optimiser: without a gradient momentum and Muon's scale would
  move the encoder on.
  """
  decoder = packing.mask(lambda path: path.startswith(DECODER))

  def update(updates, state, params=None):
    del params
    all_learn = state.num_updates < first
    updates = {
      name: update * jnp.where(all_learn, 1.0, decoder[name])
      for name, update in updates.items()
    }
    return updates, State(state.num_updates + 1)

  return optax.GradientTransformation(
    lambda params: State(jnp.zeros((), jnp.int32)), update
  )


def _matrix(key, share, section):
  """(2,2): a rotation by an angle and scale, the identity for most examples."""
  is_drawn, angle, scale = jax.random.split(jax.random.fold_in(key, STREAM), 3)
  most = jnp.deg2rad(section.rotation_deg)
  drawn = jax.random.bernoulli(is_drawn, share)
  angle = drawn * jax.random.uniform(angle, minval=-most, maxval=most)
  scale = drawn * jax.random.uniform(
    scale, minval=-section.log_scale, maxval=section.log_scale
  )
  c, s = jnp.cos(angle), jnp.sin(angle)
  return jnp.exp(scale) * jnp.array([[c, -s], [s, c]])


def _warp(x, matrices, extent):
  """Samples (b,d,h,w,c) in its planes, whose sides are `extent` image voxels long."""
  sides = jnp.asarray(x.shape[2:4])
  voxel = jnp.asarray(extent) / sides
  grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, x.shape[2:4]), indexing='ij'), -1)
  centred = (grid + 0.5 - sides / 2) * voxel

  def one(volume, matrix):
    places = centred @ matrix.T / voxel + sides / 2 - 0.5
    plane = lambda y: map_coordinates(y, [places[..., 0], places[..., 1]], 1, 'nearest')
    return jax.vmap(jax.vmap(plane), -1, -1)(volume)

  return jax.vmap(one)(x, matrices)
