"""Measuring network: labels of every voxel, and features for comparing volumes.

x (b,*space,c) -> logits (b,*space,num_classes) and features (b,f). It is trained on
public labelled volumes; its features are used instead of those of networks trained on
photographs.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.blocks import cropped, filled, from_blocks, to_blocks
from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.layers import (
  Downsample,
  Network,
  ResidualBlock,
  Upsample,
  kernels_and_strides,
)
from ldm_jax.models.norms import GroupNorm
from ldm_jax.types import Array


class Segmenter(Network):
  """Small U-Net.

  Attributes:
    num_classes: of the logits, background included.
    channels: per level, finest first.
    kernels: per level, or one kernel; two or three axes.
    strides: between two levels, or one for all; None halves every axis.
    norm_groups: of every group norm.
    patch: voxels of a block per axis; the network works on the grid of blocks, their
      voxels as channels, as `autoencoder.Autoencoder` does. () for one voxel.
    dtype: type of the products; parameters and norms stay float32.
  """

  num_classes: int
  channels: tuple = (8, 16, 32)
  kernels: tuple = (3, 3, 3)
  strides: tuple | None = None
  norm_groups: int = 4
  patch: tuple = ()
  dtype: jnp.dtype | None = None

  def setup(self) -> None:
    kernels, strides = kernels_and_strides(
      self.kernels, self.strides, len(self.channels)
    )
    block = functools.partial(
      ResidualBlock, norm_groups=self.norm_groups, dtype=self.dtype
    )
    levels = list(zip(self.channels, kernels, strict=True))
    self.conv_in = Conv(*levels[0], dtype=self.dtype)
    self.down_blocks = [block(c, k) for c, k in levels]
    self.up_blocks = [block(c, k) for c, k in levels[:-1]]
    self.downsamplers = [
      Downsample(c, k, s, dtype=self.dtype)
      for (c, k), s in zip(levels[:-1], strides, strict=True)
    ]
    self.upsamplers = [
      Upsample(c, k, s, dtype=self.dtype)
      for (c, k), s in zip(levels[:-1], strides, strict=True)
    ]
    self.norm_out = GroupNorm(self.norm_groups, dtype=jnp.float32)
    num_outputs = math.prod(self.patch) * self.num_classes
    self.conv_out = Conv(num_outputs, (1,) * len(kernels[0]))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits (b,*space,num_classes) in float32, of any spatial size."""
    states = self.maps(x)
    h = states.pop()
    for i in reversed(range(len(states))):
      h = self.upsamplers[i](h, size=states[i].shape[1:-1])
      h = self.up_blocks[i](jnp.concatenate([h, states[i]], -1))
    logits = self.conv_out(nn.silu(self.norm_out(h)))
    if not self.patch:
      return logits
    return cropped(from_blocks(logits, self.patch), x.shape[1:-1])

  def features(self, x: jax.Array, mask: Array | None = None) -> jax.Array:
    """Mean and deviation over space of the two coarsest levels: (b,f) in float32.

    f = 2 * sum of the last two channels.

    Args:
      x: (b,*space,c).
      mask: (b,*space) bool, the voxels to include; default all.
    """
    pooled = []
    for h in self.maps(x)[-2:]:
      h = h.astype(jnp.float32)
      weights = jnp.ones((*h.shape[:-1], 1), jnp.float32)
      if mask is not None:
        shape = h.shape[:-1]
        resized = jax.image.resize(mask.astype(jnp.float32), shape, 'linear')
        weights = resized[..., None]
      space = tuple(range(1, h.ndim - 1))
      total = jnp.maximum(weights.sum(space), 1e-6)
      mean = (h * weights).sum(space) / total
      centred = h - jnp.expand_dims(mean, space)
      variance = (centred**2 * weights).sum(space) / total
      pooled += [mean, jnp.sqrt(variance + 1e-6)]
    return jnp.concatenate(pooled, -1)

  def maps(self, x: jax.Array) -> list[jax.Array]:
    """Output (b,*,f) of the blocks of every level, finest first."""
    if self.patch:
      x = to_blocks(filled(x, self.patch), self.patch)
    h, states = self.conv_in(x), []
    for i, block in enumerate(self.down_blocks):
      h = block(h)
      states.append(h)
      if i < len(self.downsamplers):
        h = self.downsamplers[i](h)
    return states
