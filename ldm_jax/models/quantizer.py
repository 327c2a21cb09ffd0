"""Codebook of a discrete latent: z (b,*space,c) -> its nearest codes (b,*space,c).

The denoiser works on what comes before the codebook, and the decoder quantises, so that
a discrete latent is used as a Gaussian one is.

[Oord17] van den Oord et al., Neural discrete representation learning, 1711.00937.
[Rombach22] Rombach et al., High-resolution image synthesis with latent diffusion.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class Quantizer(nn.Module):
  """Codebook (num_codes, features).

  Parameters, moved by `training.codebook`: `codebook`; `usage` (num_codes,), the
  average share of voxels that chose each code; `candidates` (num_codes, features),
  encoder outputs that may replace dead codes.
  """

  num_codes: int
  features: int

  def setup(self):
    shape = (self.num_codes, self.features)
    self.codebook = self.param('codebook', nn.initializers.normal(1.0), shape)
    # No code has been used yet: the first step puts encoder outputs into the codebook.
    self.usage = self.param('usage', nn.initializers.zeros, shape[:1])
    self.candidates = self.param('candidates', nn.initializers.zeros, shape)

  def indices(self, z):
    """Index (b,*space) of the nearest code, by Euclidean distance in float32."""
    z = z.astype(jnp.float32)
    distances = (self.codebook**2).sum(-1) - 2 * z @ self.codebook.T
    return jnp.argmin(distances, -1)

  def __call__(self, z):
    """Nearest codes; the gradient passes straight through to z. [Oord17] Sec. 3.2"""
    codes = self.codebook[self.indices(z)].astype(z.dtype)
    return z + lax.stop_gradient(codes - z)

  def losses(self, z, picked, keys, learned_by):
    """Terms of a training step, an example at a time.

    Statistics travel as gradients, so that the step's average over examples and devices
    is theirs too: of `usage` the share of voxels a code won, of `candidates` a voxel,
    and of `codebook` the sum of the voxels it won if `learned_by` is 'averages'.

    Args:
      z: (b,*space,c) encoder outputs.
      picked: (b, num_codes) number of global examples for the one example that offers a
        candidate to a code, 0 for the others.
      keys: (b,) PRNG keys, which voxel is offered.
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


def send(parameter, statistics):
  """Zeros (b,) whose gradients with respect to the parameter are these (b,*shape)."""
  product = parameter[None] * lax.stop_gradient(statistics)
  value = product.reshape(len(product), -1).sum(1)
  return value - lax.stop_gradient(value)


def perplexity(usage):
  """exp(entropy) of shares (k,): k if all codes are used alike, 1 if one is."""
  return jnp.exp(jax.scipy.special.entr(usage / usage.sum()).sum())


def _mean(values):
  return values.reshape(len(values), -1).mean(1)
