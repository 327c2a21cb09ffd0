"""Transformer over patches: z_t (b,*space,c), t (b,) -> (b,*space,out).

[Peebles23] Scalable diffusion models with transformers, arXiv 2212.09748: patches
become tokens, the embedding of t modulates the blocks by adaLN-zero. Two or three axes,
by the length of the patch. Any size works: the volume is padded with zeros to whole
patches and the output is cropped. A context, if any, is read by cross-attention in each
block.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.attention import Attention
from ldm_jax.models.blocks import cropped, filled, from_blocks, to_blocks
from ldm_jax.models.denoisers.unet_levels import recomputed, timestep_embedding
from ldm_jax.models.layers import ZEROS, Dense, Network
from ldm_jax.models.norms import LayerNorm
from ldm_jax.types import Array, Shape

# Number of sines and cosines of t. [Peebles23]
TIME_FEATURES = 256


class DiT(Network):
  """The denoising transformer; its output is zero before training.

  Attributes:
    in_channels, out_channels: of z_t and of the output.
    patch: voxels of a token per axis; two or three axes.
    width: of a token. num_blocks: of the transformer.
    num_head_channels: features of one attention head, divides width.
    mlp_factor: hidden units of the feed-forward layers as a multiple of width.
    context_dim: channels of the context, None for no context.
    num_class_embeds: number of class labels, None for none.
    remat: store only the inputs of each block for the backward pass, see `levels`.
    dtype: type of the products; parameters and norms stay float32.
  """

  in_channels: int = 4
  out_channels: int = 4
  patch: tuple = (1, 2, 2)
  width: int = 128
  num_blocks: int = 4
  num_head_channels: int = 32
  mlp_factor: int = 4
  context_dim: int | None = None
  num_class_embeds: int | None = None
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
    """Output (b,*space,out_channels).

    Args:
      x: (b,*space,in_channels). t: (b,) time steps.
      context: (b,m,context_dim) tokens, or (tokens, mask (b,m)) with False for padding.
      class_labels: (b,) int.
      embedding: (b,width) added to the embedding of t.
      source: (b,*space,c) further input channels, see `earlier_visit`.

    Raises: ValueError if the patch, the heads or the labels do not fit.
    """
    self._check(x, class_labels)
    dense = functools.partial(Dense, dtype=self.dtype)
    time = timestep_embedding(t, TIME_FEATURES)
    time = nn.silu(dense(self.width, name='time_embed_0')(time))
    total = dense(self.width, name='time_embed_2')(time)
    if self.num_class_embeds is not None:
      table = nn.Embed(self.num_class_embeds, self.width, name='class_embedding')
      total = total + table(class_labels)
    if embedding is not None:
      total = total + embedding
    total = nn.silu(total)

    patches, grid = to_patches(x, self.patch)
    h = dense(self.width, name='patch_embed')(patches)
    if source is not None:
      of_source, _ = to_patches(source, self.patch)
      source_in = dense(self.width, use_bias=False, kernel_init=ZEROS, name='source_in')
      h = h + source_in(of_source)
    h = h + positions(grid, self.width).astype(h.dtype)
    make = functools.partial(
      DiTBlock,
      self.width // self.num_head_channels,
      self.num_head_channels,
      self.mlp_factor,
      self.dtype,
    )
    make = recomputed(make) if self.remat else make
    for i in range(self.num_blocks):
      h = make(name=f'blocks_{i}')(h, total, context)
    last = dense(2 * self.width, kernel_init=ZEROS, name='out_modulation')
    shift, scale = jnp.split(last(total)[:, None], 2, -1)
    h = LayerNorm(affine=False, dtype=self.dtype, name='out_norm')(h)
    h = h * (1 + scale) + shift
    features = math.prod(self.patch) * self.out_channels
    h = dense(features, kernel_init=ZEROS, name='out')(h)
    return from_patches(h, self.patch, grid, x.shape[1:-1])

  @property
  def embedding_dim(self) -> int:
    """Width of the embedding of t, and of `embedding`."""
    return self.width

  def _check(self, x, class_labels):
    if len(self.patch) != x.ndim - 2 or min(self.patch) < 1:
      raise ValueError(
        f'patch is {self.patch} for latents {x.shape[1:-1]}, expected one positive '
        'number per axis; change diffusion.model.dit.patch'
      )
    if x.shape[-1] != self.in_channels:
      raise ValueError(
        f'expected an input of {self.in_channels} channels, got {x.shape[-1]}; change '
        'in_channels or the latent'
      )
    if self.width % self.num_head_channels:
      raise ValueError(
        f'width is {self.width}, expected a multiple of num_head_channels = '
        f'{self.num_head_channels}; change diffusion.model.dit.width or '
        'diffusion.model.dit.num_head_channels'
      )
    if (class_labels is None) != (self.num_class_embeds is None):
      raise ValueError(
        f'class_labels {"missing" if class_labels is None else "given"} while '
        f'num_class_embeds is {self.num_class_embeds}; give both or none'
      )


class DiTBlock(nn.Module):
  """Self-attention, cross-attention, feed-forward, each with adaLN-zero: (b,n,c).

  A linear map `modulation` of the embedding (b,e) gives the shift and scale of the norm
  before each branch and the factor of its output. It is zero before training, so the
  block is then the identity.
  """

  num_heads: int
  head_dim: int
  mlp_factor: int = 4
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, h: jax.Array, embedding: Array, context: Array | None = None
  ) -> jax.Array:
    channels = h.shape[-1]
    dense = functools.partial(Dense, dtype=self.dtype)
    attention = functools.partial(
      Attention, self.num_heads, self.head_dim, qkv_bias=True, dtype=self.dtype
    )

    def feed_forward(h):
      h = dense(self.mlp_factor * channels, name='linear1')(h)
      return dense(channels, name='linear2')(nn.gelu(h))

    branches: list[Callable[[jax.Array], jax.Array]] = [attention(name='attention')]
    if context is not None:
      cross = attention(name='cross_attention')
      branches.append(lambda h: cross(h, context))
    branches.append(feed_forward)
    size = 3 * len(branches) * channels
    modulation = dense(size, kernel_init=ZEROS, name='modulation')
    parts = jnp.split(modulation(embedding)[:, None], 3 * len(branches), -1)
    for i, branch in enumerate(branches):
      shift, scale, gate = parts[3 * i : 3 * i + 3]
      norm = LayerNorm(affine=False, dtype=self.dtype, name=f'norm_{i}')
      h = h + gate * branch(norm(h) * (1 + scale) + shift)
    return h


def to_patches(x: jax.Array, patch: Shape) -> tuple[jax.Array, Shape]:
  """(b,*space,c), padded with zeros -> tokens (b,n,prod(patch) c) and their grid."""
  blocks = to_blocks(filled(x, patch), patch)
  grid = blocks.shape[1:-1]
  return blocks.reshape(x.shape[0], math.prod(grid), -1), grid


def from_patches(h: jax.Array, patch: Shape, grid: Shape, size: Shape) -> jax.Array:
  """Inverse of `to_patches`, cropped to the spatial size: (b,n,f) -> (b,*size,c)."""
  blocks = h.reshape(h.shape[0], *grid, h.shape[-1])
  return cropped(from_blocks(blocks, patch), size)


def positions(grid: Shape, width: int) -> jax.Array:
  """Cosines and sines of the index along each axis: (prod(grid), width)."""
  share = 2 * (width // (2 * len(grid)))
  parts = []
  for axis, n in enumerate(grid):
    shape = [1] * len(grid) + [share]
    shape[axis] = n
    part = timestep_embedding(jnp.arange(n), share).reshape(shape)
    parts.append(jnp.broadcast_to(part, (*grid, share)))
  table = jnp.concatenate(parts, -1).reshape(math.prod(grid), -1)
  return jnp.pad(table, [(0, 0), (0, width - table.shape[-1])])
