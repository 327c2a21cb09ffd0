"""The parts of a UNet: the embedding of t, the blocks of one grid, the middle.

[DDPM] Ho et al. 2020, arXiv 2006.11239. Parts take makers of their submodules (partly
applied classes), so that options are spelt out once, in the network.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp


def timestep_embedding(t, dim, max_period=10000.0):
  """Cosines, then sines of t at dim // 2 frequencies: (b,) -> (b,dim). [DDPM]"""
  half = dim // 2
  frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
  angles = t.astype(jnp.float32)[:, None] * frequencies
  embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
  return jnp.pad(embedding, [(0, 0), (0, dim % 2)])


class Level(nn.Module):
  """Blocks resnets_i, each with attentions_i, then a resampler, all of one grid.

  Attributes:
    num_blocks: residual blocks.
    residual, attention, resampler: makers of the submodules; attention and resampler
      may be None.
    resampler_name: 'downsampler' or 'upsampler'.
  """

  num_blocks: int
  residual: Callable
  attention: Callable | None
  resampler: Callable | None
  resampler_name: str

  @nn.compact
  def __call__(self, x, embedding, context, skips=(), size=None):
    """Returns x and the output of every block and of the resampler.

    Args:
      skips: joined to the channels before each block, the last one first.
      size: of the finer grid an upsampler is cropped to.
    """
    states, skips = [], list(skips)
    for i in range(self.num_blocks):
      if skips:
        x = jnp.concatenate([x, skips.pop()], -1)
      x = self.residual(name=f'resnets_{i}')(x, embedding)
      if self.attention is not None:
        x = self.attention(name=f'attentions_{i}')(x, context)
      states.append(x)
    if self.resampler is not None:
      x = self.resampler(name=self.resampler_name)(x, embedding, size)
      states.append(x)
    return x, states


class Middle(nn.Module):
  """resnet_1, attention (if there is a maker for it), resnet_2."""

  residual: Callable
  attention: Callable | None

  @nn.compact
  def __call__(self, x, embedding, context):
    x = self.residual(name='resnet_1')(x, embedding)
    if self.attention is not None:
      x = self.attention(name='attention')(x, context)
    return self.residual(name='resnet_2')(x, embedding)
