"""The UNet of the paper: z_t (b,d,h,w,c), t (b,) -> (b,d,h,w,out).

[Daum24] arXiv 2407.16405: kernels (1,k,k), so that slices interact through depth
attention only; every level is followed by a grid that is coarser in plane, the coarsest
grid has one block; the embedding of t (cosines and sines) enters each residual block
through its own linear map.

The publication does not specify the resampling. Averages on the way down and nearest
neighbour with a 3x3 convolution to the finer level's channels on the way up give its
27.9 M parameters, 9.1 M of them in attention.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.denoisers.depth_transformer import DepthTransformer
from ldm_jax.models.denoisers.unet_levels import Level, timestep_embedding
from ldm_jax.models.layers import (
  ZEROS,
  Network,
  ResidualBlock,
  Upsample,
  average,
  kernels_and_strides,
  per_level,
)
from ldm_jax.models.norms import GroupNorm
from ldm_jax.types import Array


class SliceUNet(Network):
  """The denoising network of [Daum24]; its output is zero before training.

  Attributes:
    in_channels, out_channels, channels, num_res_blocks, kernels, attention_levels,
      norm_groups, norm_eps, context_dim, dtype, remat: as in `unet.UNet`.
    strides: between two levels, or one for all; the last one is also the stride from
      the coarsest level to the middle.
    num_heads, num_head_channels: of every attention, at every level.
  """

  in_channels: int = 1
  out_channels: int = 1
  channels: tuple = (128, 256, 384)
  num_res_blocks: tuple | int = 2
  kernels: tuple = (1, 3, 3)
  strides: tuple = (1, 2, 2)
  attention_levels: tuple | bool | None = (False, True, True)
  num_heads: int = 8
  num_head_channels: int = 16
  norm_groups: int = 32
  context_dim: int | None = None
  norm_eps: float = 1e-6
  remat: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    t: Array,
    context: Array | None = None,
    class_labels: Array | None = None,
    embedding: Array | None = None,
    source: Array | None = None,
  ) -> jax.Array:
    """Output (b,*space,out_channels); arguments as those of `unet.UNet`."""
    if class_labels is not None:
      raise ValueError(
        "the UNet of Daum 2024 takes no class_labels; set diffusion.model.kind='unet'"
      )
    num, channels = len(self.channels), self.channels
    kernels, strides = kernels_and_strides(self.kernels, self.strides, num)
    strides = (*strides, strides[-1] if strides else (1, 2, 2))
    total = timestep_embedding(t, channels[0])
    total = total if embedding is None else total + embedding
    conv = functools.partial(Conv, kernel_size=kernels[0], dtype=self.dtype)
    x = conv(channels[0], name='conv_in')(x)
    if source is not None:
      source_in = conv(channels[0], use_bias=False, kernel_init=ZEROS, name='source_in')
      x = x + source_in(source)
    skips = []
    for i in range(num):
      down = self._level(i, channels[i], f'down_blocks_{i}')
      x, states = down(x, total, context)
      skips.append(states)
      x = average(x, strides[i])
    middle = functools.partial(self._level, num - 1, channels[-1], num_blocks=1)
    x, _ = middle('middle_block', attends=self.attends[-1])(x, total, context)
    for i in reversed(range(num)):
      finer = channels[max(i - 1, 0)]
      name = f'{num - 1 - i}'
      up = Upsample(
        finer, kernels[i], strides[i], dtype=self.dtype, name=f'upsamplers_{name}'
      )
      x = up(x, None, skips[i][-1].shape[1:-1])
      x, _ = self._level(i, finer, f'up_blocks_{name}')(x, total, context, skips[i])
    norm = GroupNorm(self.norm_groups, self.norm_eps, dtype=self.dtype, name='out_0')
    return conv(self.out_channels, kernel_init=ZEROS, name='out_2')(nn.silu(norm(x)))

  @property
  def embedding_dim(self) -> int:
    """Width of the embedding of t, and of `embedding`."""
    return self.channels[0]

  @property
  def attends(self) -> tuple[bool, ...]:
    """Per level, whether attention follows each residual block."""
    return per_level(self.attention_levels, len(self.channels), 'attention_levels')

  def _level(self, i, features, name, num_blocks=None, attends=None):
    num = len(self.channels)
    kernels, _ = kernels_and_strides(self.kernels, self.strides, num)
    blocks = per_level(self.num_res_blocks, num, 'num_res_blocks')
    residual = functools.partial(
      ResidualBlock,
      features,
      kernels[i],
      self.norm_groups,
      self.norm_eps,
      zero_init=True,
      dtype=self.dtype,
    )
    attention = None
    if self.attends[i] if attends is None else attends:
      attention = functools.partial(
        DepthTransformer, self.num_heads, self.num_head_channels, self.dtype
      )
    num_blocks = blocks[i] if num_blocks is None else num_blocks
    return Level(num_blocks, residual, attention, None, '', self.remat, name=name)
