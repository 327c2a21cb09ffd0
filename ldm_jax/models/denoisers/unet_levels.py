"""The parts of a UNet: the embedding of t, the blocks of one level, the middle.

[DDPM] Ho et al. 2020, arXiv 2006.11239. Their submodules are passed as makers
(functools.partial of a class), so that options are listed once, in the network.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.types import Array, Shape


def timestep_embedding(t: Array, dim: int, max_period: float = 10000.0) -> jax.Array:
  """Cosines, then sines of t at dim // 2 frequencies: (b,) -> (b,dim). [DDPM]"""
  half = dim // 2
  frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
  angles = t.astype(jnp.float32)[:, None] * frequencies
  embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
  return jnp.pad(embedding, [(0, 0), (0, dim % 2)])


def recomputed(maker: functools.partial) -> functools.partial:
  """A maker of the same module that recomputes its inner values in the backward pass.

  Only its inputs are stored, at the cost of one more forward pass. This saves memory on
  GPU and TPU; on a CPU XLA recomputes too early to save any (configs/daum24.py: 2.5 GiB
  with and without).
  """
  return functools.partial(nn.remat(maker.func), *maker.args, **maker.keywords)


class Level(nn.Module):
  """Blocks resnets_i, each followed by attentions_i, then a resampler.

  Attributes:
    num_blocks: number of residual blocks.
    residual, attention, resampler: makers of the submodules; attention and resampler
      may be None.
    resampler_name: 'downsampler' or 'upsampler'.
    remat: store only the inputs of each block, see `recomputed`.
  """

  num_blocks: int
  residual: Callable
  attention: Callable | None
  resampler: Callable | None
  resampler_name: str
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    x: Array,
    embedding: Array,
    context: Array | None,
    skips: Sequence[Array] = (),
    size: Shape | None = None,
  ) -> tuple[Array, list[Array]]:
    """Returns x and the output of every block and of the resampler.

    Args:
      skips: concatenated to the channels before each block, the last one first.
      size: spatial size that an upsampler's output is cropped to.
    """
    states, skips = [], list(skips)
    residual, attention = _blocks(self)
    for i in range(self.num_blocks):
      if skips:
        x = jnp.concatenate([x, skips.pop()], -1)
      x = residual(name=f'resnets_{i}')(x, embedding)
      if attention is not None:
        x = attention(name=f'attentions_{i}')(x, context)
      states.append(x)
    if self.resampler is not None:
      x = self.resampler(name=self.resampler_name)(x, embedding, size)
      states.append(x)
    return x, states


class Middle(nn.Module):
  """resnet_1, attention (unless None), resnet_2."""

  residual: Callable
  attention: Callable | None
  remat: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, embedding: Array, context: Array) -> jax.Array:
    residual, attention = _blocks(self)
    x = residual(name='resnet_1')(x, embedding)
    if attention is not None:
      x = attention(name='attention')(x, context)
    return residual(name='resnet_2')(x, embedding)


def _blocks(part):
  """Makers of the residual and attention blocks of a level or the middle."""
  makers = part.residual, part.attention
  if not part.remat:
    return makers
  return tuple(maker and recomputed(maker) for maker in makers)
