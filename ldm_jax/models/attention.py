"""Attention over tokens and over the voxels of a volume: (b,n,c) -> (b,n,c).

Head i has the i-th contiguous block of features / num_heads channels, examples are
never mixed, and softmax is computed in float32. Layouts follow MONAI's SABlock,
CrossAttentionBlock and SpatialTransformer.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ldm_jax.models import platform
from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.layers import ZEROS, Dense
from ldm_jax.models.norms import GroupNorm, LayerNorm
from ldm_jax.types import Array

# Scores in memory at once; more are computed in parts, again in the backward pass. A
# CPU is two to three times faster when they stay in its cache (measured on two cores);
# 2**25 float32 scores are 128 MiB.
MAX_SCORES = {'cpu': 2**20}
MAX_SCORES_ELSEWHERE = 2**25
# The score of a masked key: its weight underflows to exactly zero.
MASKED = -1e30
# Name under which cross-attention stores its weights if the caller makes the collection
# `intermediates` mutable; otherwise they are not computed for it.
WEIGHTS = 'cross_attention_weights'


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  max_scores: int | None = None,
  mask: Array | None = None,
) -> jax.Array:
  """softmax(query key^T / sqrt(d)) value with bounded memory.

  Args:
    query: (b, n, heads, d). key, value: (b, m, heads, d).
    max_scores: largest number of scores in memory at once; None for the platform's
      default. If there are more, a few examples are computed at a time, or a few
      queries if one example has more.
    mask: (b, m) bool, False for padding; every example needs one True. None for no
      padding.

  Returns: (b, n, heads, d) in the type of value.
  """
  if max_scores is None:
    max_scores = MAX_SCORES.get(platform.name(), MAX_SCORES_ELSEWHERE)
  b, n, heads = query.shape[:3]
  per_example = heads * n * key.shape[1]
  if b * per_example <= max_scores:
    return _attend_whole(query, key, value, mask)
  if per_example > max_scores:
    length = max(1, max_scores * n // (b * per_example))
    return _attend_queries(query, key, value, mask, length)

  def one(example):
    return _attend_whole(*jax.tree.map(lambda x: x[None], example))[0]

  group = max_scores // per_example
  return lax.map(jax.checkpoint(one), (query, key, value, mask), batch_size=group)


def _attend_whole(query, key, value, mask):
  weights = attention_weights(query, key, mask).astype(value.dtype)
  return jnp.einsum('bhnm,bmhd->bnhd', weights, value)


def attention_weights(
  query: jax.Array, key: jax.Array, mask: Array | None = None
) -> jax.Array:
  """softmax(query key^T / sqrt(d)): (b, heads, n, m) float32; arguments of `attend`."""
  scores = jnp.einsum(
    'bnhd,bmhd->bhnm',
    query * query.shape[-1] ** -0.5,
    key,
    preferred_element_type=jnp.float32,
  )
  if mask is not None:
    scores = jnp.where(mask[:, None, None], scores, MASKED)
  return nn.softmax(scores)


def _attend_queries(query, key, value, mask, length):
  b, n, heads, d = query.shape
  padded = jnp.pad(query, [(0, 0), (0, -n % length), (0, 0), (0, 0)])
  chunks = jnp.moveaxis(padded.reshape(b, -1, length, heads, d), 1, 0)

  def some(query):
    return _attend_whole(query, key, value, mask)

  y = lax.map(jax.checkpoint(some), chunks)
  return jnp.moveaxis(y, 0, 1).reshape(padded.shape)[:, :n]


class Attention(nn.Module):
  """Multi-head attention of x to context, or to itself: (b,n,c), (b,m,e) -> (b,n,c).

  A context may be (tokens, mask): tokens whose mask (b,m) is False are padding.
  Parameters to_q, to_k, to_v (with biases if qkv_bias) and, if projects, out_proj (zero
  before training if zero_init).
  """

  num_heads: int
  head_dim: int
  qkv_bias: bool = False
  dtype: jnp.dtype | None = None
  zero_init: bool = False
  projects: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, context: Array | None = None) -> jax.Array:
    context, mask = context if isinstance(context, tuple) else (context, None)
    reads_context = context is not None
    context = x if context is None else context
    width = self.num_heads * self.head_dim
    dense = functools.partial(Dense, width, use_bias=self.qkv_bias, dtype=self.dtype)

    def heads(y):
      return y.reshape(*y.shape[:-1], self.num_heads, self.head_dim)

    query = heads(dense(name='to_q')(x))
    key = heads(dense(name='to_k')(context))
    value = heads(dense(name='to_v')(context))
    if reads_context and self.is_mutable_collection('intermediates'):
      self.sow('intermediates', WEIGHTS, attention_weights(query, key, mask))
    y = attend(query, key, value, mask=mask).reshape(*x.shape[:-1], width)
    if not self.projects:
      return y
    last: dict[str, Any] = {'kernel_init': ZEROS} if self.zero_init else {}
    return Dense(x.shape[-1], dtype=self.dtype, name='out_proj', **last)(y)


class FeedForward(nn.Module):
  """Gated feed-forward layer linear1, gelu, linear2 with 4 c hidden units: (b,n,c)."""

  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    y = Dense(8 * channels, dtype=self.dtype, name='linear1')(x)
    y, gate = jnp.split(y, 2, axis=-1)
    y = y * nn.gelu(gate, approximate=False)
    return Dense(channels, dtype=self.dtype, name='linear2')(y)


class TransformerBlock(nn.Module):
  """Self-attention attn1, cross-attention attn2, feed-forward ff, each after a norm.

  projects: whether attn1 has an out_proj.
  """

  num_heads: int
  head_dim: int
  dtype: jnp.dtype | None = None
  projects: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, context: Array | None = None) -> jax.Array:
    attention = functools.partial(
      Attention, self.num_heads, self.head_dim, dtype=self.dtype
    )

    def norm(x, name):
      return LayerNorm(dtype=self.dtype, name=name)(x)

    own = attention(projects=self.projects, name='attn1')
    x = x + own(norm(x, 'norm1'))
    x = x + attention(name='attn2')(norm(x, 'norm2'), context)
    return x + FeedForward(dtype=self.dtype, name='ff')(norm(x, 'norm3'))


class SpatialTransformer(nn.Module):
  """Transformer over all voxels with a context: x (b,*space,c), (b,m,e) -> like x.

  norm, proj_in, transformer_blocks_i, proj_out (zero before training), plus a skip.
  """

  num_heads: int
  head_dim: int
  norm_groups: int
  norm_eps: float = 1e-6
  num_layers: int = 1
  dtype: jnp.dtype | None = None
  projects: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, context: Array | None = None) -> jax.Array:
    one = (1,) * (x.ndim - 2)
    width = self.num_heads * self.head_dim
    norm = GroupNorm(self.norm_groups, self.norm_eps, dtype=self.dtype, name='norm')
    h = Conv(width, one, dtype=self.dtype, name='proj_in')(norm(x))
    h = h.reshape(x.shape[0], -1, width)
    for i in range(self.num_layers):
      name = f'transformer_blocks_{i}'
      block = TransformerBlock(
        self.num_heads, self.head_dim, self.dtype, self.projects, name=name
      )
      h = block(h, context)
    h = h.reshape(*x.shape[:-1], width)
    proj_out = Conv(
      x.shape[-1], one, kernel_init=ZEROS, dtype=self.dtype, name='proj_out'
    )
    return x + proj_out(h)


class AttentionBlock(nn.Module):
  """Self-attention over all voxels after a norm, plus a skip: (b,*space,c) -> same.

  One head unless head_dim is given. Parameters norm, attn.
  """

  norm_groups: int
  norm_eps: float = 1e-6
  head_dim: int | None = None
  dtype: jnp.dtype | None = None
  projects: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, context: Array | None = None) -> jax.Array:
    del context  # same signature as SpatialTransformer
    channels = x.shape[-1]
    head_dim = self.head_dim or channels
    norm = GroupNorm(self.norm_groups, self.norm_eps, dtype=self.dtype, name='norm')
    h = norm(x).reshape(x.shape[0], -1, channels)
    attention = Attention(
      channels // head_dim,
      head_dim,
      qkv_bias=True,
      dtype=self.dtype,
      projects=self.projects,
      name='attn',
    )
    return x + attention(h).reshape(x.shape)
