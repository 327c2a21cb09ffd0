"""The denoising UNet: z_t (b,*space,c), t (b,) -> (b,*space,out).

[MONAI] It has the blocks, names and order of DiffusionModelUNet. Kernels and strides
are per level and axis. Any spatial size works: the result of up-sampling is cropped to
the size of the skip connection.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.attention import AttentionBlock, SpatialTransformer
from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.denoisers.depth_transformer import DepthTransformer
from ldm_jax.models.denoisers.unet_levels import Level, Middle, timestep_embedding
from ldm_jax.models.layers import (
  ZEROS,
  Dense,
  Downsample,
  Network,
  ResidualBlock,
  Upsample,
  kernels_and_strides,
  per_level,
)
from ldm_jax.models.norms import GroupNorm
from ldm_jax.types import Array

# Width of the embedding of t, in multiples of the finest level's channels. [MONAI]
EMBEDDING_FACTOR = 4
ATTENTIONS = ('volume', 'depth')


class UNet(Network):
  """The denoising network; its output is zero before training.

  Attributes:
    in_channels, out_channels: of z_t and of the output.
    channels: per level, finest first.
    num_res_blocks: per level, or one number.
    kernels: per level, or one kernel; two or three axes.
    strides: between two levels, or one for all; None halves every axis.
    attention: 'volume' attends over all voxels at once, 'depth' within slices, then
      along depth (`depth_transformer.DepthTransformer`).
    attention_levels: bool per level, or one.
    middle_attention: attention between the two blocks of the coarsest grid.
    num_head_channels: per level, or one number; features of one attention head.
    num_heads: of every attention; None for channels / num_head_channels.
    norm_groups, norm_eps: of every group norm.
    attention_norm_eps: epsilon of those before attention; None for norm_eps.
    attention_projects: whether self-attention ends in an out_proj.
    context_dim: channels of the context that attention reads; None for
      self-attention only.
    num_transformer_layers: per attention over a context.
    num_class_embeds: number of class labels, None for none.
    resblock_updown: resample inside residual blocks instead of by convolutions.
    modulates: the embedding scales and shifts what leaves a block's second norm,
      instead of being added before it.
    remat: store only the inputs of each block for the backward pass, see `levels`.
    dtype: type of the products; parameters and norms stay float32.
  """

  in_channels: int = 4
  out_channels: int = 4
  channels: tuple = (32, 64)
  num_res_blocks: tuple | int = 1
  kernels: tuple = (3, 3, 3)
  strides: tuple | None = None
  attention_levels: tuple | bool | None = None
  num_head_channels: tuple | int = 16
  norm_groups: int = 8
  context_dim: int | None = None
  num_class_embeds: int | None = None
  middle_attention: bool = True
  num_transformer_layers: int = 1
  resblock_updown: bool = False
  modulates: bool = False
  norm_eps: float = 1e-6
  attention: str = 'volume'
  num_heads: int | None = None
  remat: bool = False
  attention_norm_eps: float | None = None
  attention_projects: bool = True
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
    """Output (b,*space,out_channels).

    Args:
      x: (b,*space,in_channels). t: (b,) time steps.
      context: (b,m,context_dim) tokens, or (tokens, mask (b,m)) with False for
        padding.
      class_labels: (b,) int.
      embedding: (b,4*channels[0]) added to the embedding of t.
      source: (b,*space,c) further input channels, see `earlier_visit`.

    Raises: ValueError if context, labels or options do not fit.
    """
    self._check(x, context, class_labels)
    kernels, _ = kernels_and_strides(self.kernels, self.strides, len(self.channels))
    dense = functools.partial(Dense, self.embedding_dim, dtype=self.dtype)
    time = timestep_embedding(t, self.channels[0])
    time = nn.silu(dense(name='time_embed_0')(time))
    total = dense(name='time_embed_2')(time)
    if self.num_class_embeds is not None:
      table = nn.Embed(
        self.num_class_embeds, self.embedding_dim, name='class_embedding'
      )
      total = total + table(class_labels)
    if embedding is not None:
      total = total + embedding
    conv = functools.partial(Conv, kernel_size=kernels[0], dtype=self.dtype)
    x = conv(self.channels[0], name='conv_in')(x)
    if source is not None:
      source_in = conv(
        self.channels[0], use_bias=False, kernel_init=ZEROS, name='source_in'
      )
      x = x + source_in(source)
    states = [x]
    num_levels = len(self.channels)
    for i in range(num_levels):
      x, new = self._down(i)(x, total, context)
      states += new
    last = num_levels - 1
    attention = self._attention(last) if self.middle_attention else None
    middle = Middle(self._residual(last), attention, self.remat, name='middle_block')
    x = middle(x, total, context)
    for i in reversed(range(num_levels)):
      level = self._up(i)
      skips = states[-level.num_blocks :]
      del states[-level.num_blocks :]
      size = states[-1].shape[1:-1] if states else None
      x, _ = level(x, total, context, skips, size)
    norm = GroupNorm(self.norm_groups, self.norm_eps, dtype=self.dtype, name='out_0')
    return conv(self.out_channels, kernel_init=ZEROS, name='out_2')(nn.silu(norm(x)))

  @property
  def embedding_dim(self) -> int:
    """Width of the embedding of t, and of `embedding`."""
    return EMBEDDING_FACTOR * self.channels[0]

  def _down(self, i):
    resampler = None
    if i < len(self.channels) - 1:
      resampler = self._resampler('down', i, i)
    return self._level(i, 0, resampler, 'downsampler', f'down_blocks_{i}')

  def _up(self, i):
    resampler = self._resampler('up', i, i - 1) if i else None
    name = f'up_blocks_{len(self.channels) - 1 - i}'
    return self._level(i, 1, resampler, 'upsampler', name)

  def _level(self, i, extra, resampler, resampler_name, name):
    num = len(self.channels)
    num_blocks = per_level(self.num_res_blocks, num, 'num_res_blocks')[i] + extra
    attends = per_level(self.attention_levels, num, 'attention_levels')[i]
    attention = self._attention(i) if attends else None
    return Level(
      num_blocks,
      self._residual(i),
      attention,
      resampler,
      resampler_name,
      self.remat,
      name=name,
    )

  def _resampler(self, direction, i, finer):
    """Maker of the resampler from level i to a neighbour; `finer`: the finer one."""
    kernels, strides = kernels_and_strides(
      self.kernels, self.strides, len(self.channels)
    )
    if self.resblock_updown:
      return functools.partial(
        self._residual(i),
        kernel_size=kernels[finer],
        resample=direction,
        strides=strides[finer],
      )
    return functools.partial(
      Downsample if direction == 'down' else Upsample,
      self.channels[i],
      kernels[finer],
      strides[finer],
      dtype=self.dtype,
    )

  def _residual(self, i):
    kernels, _ = kernels_and_strides(self.kernels, self.strides, len(self.channels))
    return functools.partial(
      ResidualBlock,
      features=self.channels[i],
      kernel_size=kernels[i],
      norm_groups=self.norm_groups,
      norm_eps=self.norm_eps,
      zero_init=True,
      modulates=self.modulates,
      dtype=self.dtype,
    )

  def _attention(self, i):
    channels = self.channels[i]
    num = len(self.channels)
    head_dim = per_level(self.num_head_channels, num, 'num_head_channels')[i]
    shared = {
      'norm_groups': self.norm_groups,
      'norm_eps': self.attention_norm_eps or self.norm_eps,
      'dtype': self.dtype,
      'projects': self.attention_projects,
    }
    num_heads = self.num_heads or channels // head_dim
    plain = self.context_dim is None and self.attention == 'volume'
    if not num_heads or (plain and channels != num_heads * head_dim):
      raise ValueError(
        f'{channels} channels cannot be split into heads of {head_dim} channels; '
        'change channels, num_head_channels or num_heads'
      )
    if self.attention == 'depth':
      return functools.partial(DepthTransformer, num_heads, head_dim, self.dtype)
    if plain:
      return functools.partial(AttentionBlock, head_dim=head_dim, **shared)
    return functools.partial(
      SpatialTransformer,
      num_heads=num_heads,
      head_dim=head_dim,
      num_layers=self.num_transformer_layers,
      **shared,
    )

  def _check(self, x, context, class_labels):
    if x.shape[-1] != self.in_channels:
      raise ValueError(
        f'expected an input of {self.in_channels} channels, got {x.shape[-1]}; change '
        'in_channels or the latent'
      )
    if self.attention not in ATTENTIONS:
      raise ValueError(
        f'attention is {self.attention!r}, expected one of {ATTENTIONS}; change '
        'diffusion.model.attention'
      )
    context = context[0] if isinstance(context, tuple) else context
    given = None if context is None else context.shape[-1]
    if given is not None and given != self.context_dim:
      raise ValueError(
        f'context has {given} channels, but context_dim is {self.context_dim}; set '
        'context_dim to the width of the tokens'
      )
    if (class_labels is None) != (self.num_class_embeds is None):
      raise ValueError(
        f'class_labels {"missing" if class_labels is None else "given"} while '
        f'num_class_embeds is {self.num_class_embeds}; give both or none'
      )
