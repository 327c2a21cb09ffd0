"""Attention within slices, then along depth: (b,d,h,w,c), (b,m,e) -> (b,d,h,w,c).

[Daum24] arXiv 2407.16405. For thick slices (10 mm against 2 mm in plane): attention
within each slice, then within each column of voxels along depth, then from every voxel
to the tokens of the condition. The number of scores is d (hw)^2 + hw d^2 instead of
(dhw)^2.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.attention import Attention
from ldm_jax.models.denoisers.unet_levels import timestep_embedding
from ldm_jax.models.layers import ZEROS, Dense
from ldm_jax.models.norms import LayerNorm
from ldm_jax.types import Array


class DepthTransformer(nn.Module):
  """Slice, depth, feed-forward and cross-attention, each after a norm and with a skip.

  Every branch is zero before training. Parameters norm_i, slice_attention,
  depth_attention, linear1, linear2 and, with a context, cross_attention. Raises
  ValueError for images, which have no depth.
  """

  num_heads: int
  head_dim: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array, context: Array | None = None) -> jax.Array:
    if x.ndim != 5:
      raise ValueError(
        f'depth attention: expected (b,d,h,w,c), got {x.shape}; set '
        "diffusion.model.attention='volume' for images"
      )
    b, d, height, width, channels = x.shape
    attention = functools.partial(
      Attention, self.num_heads, self.head_dim, dtype=self.dtype, zero_init=True
    )

    def norm(i, h):
      return LayerNorm(dtype=self.dtype, name=f'norm_{i}')(h)

    h = x.reshape(b * d, height * width, channels)
    h = h + attention(name='slice_attention')(norm(0, h))
    h = h.reshape(b, d, height * width, channels)
    columns = jnp.swapaxes(norm(1, h), 1, 2).reshape(-1, d, channels)
    # Attention does not depend on the order of the slices: their positions are added.
    place = timestep_embedding(jnp.arange(d), channels).astype(columns.dtype)
    columns = attention(name='depth_attention')(columns + place)
    h = h + jnp.swapaxes(columns.reshape(b, -1, d, channels), 1, 2)
    h = h.reshape(b, -1, channels)
    h = h + self._feed_forward(norm(2, h))
    if context is not None:
      h = h + attention(name='cross_attention')(norm(3, h), context)
    return h.reshape(x.shape)

  def _feed_forward(self, h):
    channels = h.shape[-1]
    h = nn.gelu(Dense(4 * channels, dtype=self.dtype, name='linear1')(h))
    return Dense(channels, kernel_init=ZEROS, dtype=self.dtype, name='linear2')(h)
