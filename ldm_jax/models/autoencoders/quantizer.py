"""Codebook of a discrete latent: z (b,*space,c) -> its nearest codes (b,*space,c).

The denoiser works on latents before quantisation and the decoder quantises them, so
that discrete latents are used in the same way as Gaussian ones.

[Oord17] van den Oord et al., Neural discrete representation learning, 1711.00937.
[Rombach22] Rombach et al., High-resolution image synthesis with latent diffusion.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ldm_jax.types import Array


class Quantizer(nn.Module):
  """Codebook (num_codes, features).

  Parameters, updated by `training.codebook`: `codebook`; `usage` (num_codes,), the
  average fraction of voxels with each code; `candidates` (num_codes, features), encoder
  outputs that may replace unused codes.
  """

  num_codes: int
  features: int

  def setup(self) -> None:
    shape = (self.num_codes, self.features)
    self.codebook = self.param('codebook', nn.initializers.normal(1.0), shape)
    # No code is in use yet: the first step replaces all by encoder outputs.
    self.usage = self.param('usage', nn.initializers.zeros, shape[:1])
    self.candidates = self.param('candidates', nn.initializers.zeros, shape)

  def indices(self, z: jax.Array) -> jax.Array:
    """Index (b,*space) of the nearest code, by Euclidean distance in float32."""
    z = z.astype(jnp.float32)
    distances = (self.codebook**2).sum(-1) - 2 * z @ self.codebook.T
    return jnp.argmin(distances, -1)

  def __call__(self, z: jax.Array) -> jax.Array:
    """Nearest codes, with a straight-through gradient to z. [Oord17] Sec. 3.2"""
    codes = self.codebook[self.indices(z)].astype(z.dtype)
    return z + lax.stop_gradient(codes - z)

  def losses(
    self, z: jax.Array, picked: Array, keys: jax.Array, learned_by: str
  ) -> dict[str, jax.Array]:
    """Loss terms of a training step, per example.

    Statistics are passed on as gradients, so that they are averaged over examples and
    devices like gradients: for `usage` the fraction of voxels with a code, for
    `candidates` a voxel, and for `codebook` the sum of the voxels with a code if
    `learned_by` is 'averages'.

    Args:
      z: (b,*space,c) encoder outputs.
      picked: (b, num_codes) for each code the global number of examples at the one
        example that supplies its candidate, 0 at the others.
      keys: (b,) PRNG keys, which choose the voxels of the candidates.
      learned_by: 'averages' or 'gradient' ([Oord17] Eq. 3, second term).

    Returns:
      dict of (b,): codebook (its loss), commitment ([Oord17] Eq. 3, third term, without
      its weight), perplexity (number of codes an example uses, as exp of an entropy).
    """
    indices = self.indices(z)
    flat, won = z.reshape(len(z), -1, self.features), indices.reshape(len(z), -1)
    share = 1 / won.shape[1]
    used = jax.vmap(lambda i: jnp.zeros(self.num_codes).at[i].add(share))(won)
    offered = jax.vmap(self._offer)(keys, flat) * picked[..., None]
    statistics = send(self.usage, used) + send(self.candidates, offered)
    codes = self.codebook[indices]
    if learned_by == 'gradient':
      statistics += _mean(jnp.square(lax.stop_gradient(z) - codes))
    else:
      zeros = jnp.zeros_like(self.codebook)
      sums = jax.vmap(lambda i, v: zeros.at[i].add(share * v))(won, flat)
      statistics += send(self.codebook, sums)
    return {
      'codebook': statistics,
      'commitment': _mean(jnp.square(z - lax.stop_gradient(codes))),
      'perplexity': jax.vmap(perplexity)(used),
    }

  def _offer(self, key, voxels):
    chosen = jax.random.randint(key, (self.num_codes,), 0, len(voxels))
    return voxels[chosen]


def send(parameter: jax.Array, statistics: jax.Array) -> jax.Array:
  """Zeros (b,) whose gradients by the parameter are the statistics (b,*shape)."""
  product = parameter[None] * lax.stop_gradient(statistics)
  value = product.reshape(len(product), -1).sum(1)
  return value - lax.stop_gradient(value)


def perplexity(usage: jax.Array) -> jax.Array:
  """exp(entropy) of usage (k,): k if all codes are used equally, 1 if one is used."""
  return jnp.exp(jax.scipy.special.entr(usage / usage.sum()).sum())


def _mean(values):
  return values.reshape(len(values), -1).mean(1)
