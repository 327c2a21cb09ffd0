"""Attributes as tokens and an embedding: (b,k) -> (b,k,width), (b,embedding_dim).

[Daum24] arXiv 2407.16405: one linear map per attribute, SELU, one layer of
self-attention over the tokens. Added here: learned tokens for missing attributes (NaN)
and for dropped conditions (classifier-free guidance), a few sines of each value as
further features, and an embedding pooled from the tokens, which every block gets.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.attention import Attention
from ldm_jax.models.init import uniform
from ldm_jax.models.layers import Dense
from ldm_jax.types import Array


class AttributeEncoder(nn.Module):
  """Encoder of a schema's encoded attributes.

  Attributes:
    num_categories: per attribute, 0 if continuous (Schema.num_categories).
    width: of a token.
    num_heads, head_dim: of the self-attention; head_dim defaults to width / num_heads.
    num_frequencies: f adds sin and cos of pi 2^i value / 2 for i < f.
    shared_absent: all attributes share one learned token for missing and one for
      dropped ones, instead of one each.
    embedding_dim: of the pooled embedding, None for none.
  """

  num_categories: tuple
  width: int = 16
  num_heads: int = 4
  head_dim: int | None = None
  num_frequencies: int = 3
  shared_absent: bool = False
  embedding_dim: int | None = None
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, attributes: jax.Array, drop: Array | None = None
  ) -> tuple[jax.Array, jax.Array | None]:
    """Tokens (b,k,width) and embedding (b,embedding_dim) or None.

    Args:
      attributes: (b,k) float, continuous ones near [-1, 1], categories by their index,
        NaN where missing.
      drop: (b,) bool, True for examples without condition.

    Raises: ValueError if the attributes have another shape.
    """
    k = len(self.num_categories)
    if attributes.ndim != 2 or attributes.shape[1] != k:
      raise ValueError(
        f'expected attributes (b, {k}), got {attributes.shape}; encode them with the '
        'schema of this network'
      )
    absent = jnp.isnan(attributes)
    # Replaced before any computation: `where` on the result would not keep the NaN out
    # of the gradient.
    values = jnp.where(absent, 0.0, attributes)
    tokens = jnp.zeros((*attributes.shape, self.width), jnp.float32)
    continuous = [i for i, n in enumerate(self.num_categories) if not n]
    categorical = [i for i, n in enumerate(self.num_categories) if n]
    if continuous:
      own = self._continuous(values[:, continuous])
      tokens = tokens.at[:, continuous].set(own)
    if categorical:
      own = self._categorical(values[:, categorical], categorical)
      tokens = tokens.at[:, categorical].set(own)
    num_absent = 1 if self.shared_absent else k
    missing = self._token('missing', num_absent)
    null = self._token('null', num_absent)
    tokens = jnp.where(absent[..., None], missing, nn.selu(tokens))
    if drop is not None:
      tokens = jnp.where(drop[:, None, None], null, tokens)
    tokens = tokens.astype(self.dtype or tokens.dtype)
    head_dim = self.head_dim or self.width // self.num_heads
    attention = Attention(self.num_heads, head_dim, dtype=self.dtype, name='attention')
    tokens = tokens + attention(tokens)
    if self.embedding_dim is None:
      return tokens, None
    flat = tokens.reshape(tokens.shape[0], -1)
    hidden = Dense(self.embedding_dim, dtype=self.dtype, name='embed_0')(flat)
    embed = Dense(self.embedding_dim, dtype=self.dtype, name='embed_2')
    return tokens, embed(nn.silu(hidden))

  def _continuous(self, values):
    """A linear map per attribute of its value and sines: (b,n) -> (b,n,width)."""
    angles = values[..., None] * (jnp.pi / 2) * 2.0 ** jnp.arange(self.num_frequencies)
    features = [values[..., None], jnp.sin(angles), jnp.cos(angles)]
    features = jnp.concatenate(features, -1)
    shape = (values.shape[1], features.shape[-1], self.width)
    # The fan-in is that of one attribute.
    bound = math.sqrt(3 / shape[1])
    kernel = self.param('continuous_kernel', uniform, shape, bound)
    bias = self._token('continuous_bias', shape[0])
    return jnp.einsum('bnf,nfw->bnw', features, kernel) + bias

  def _categorical(self, values, which):
    """The row of a table for each category, index rounded: (b,n) -> (b,n,width)."""
    counts = [self.num_categories[i] for i in which]
    table = self._token('categories', sum(counts))
    rows, first = [], 0
    for i, count in enumerate(counts):
      index = jnp.clip(jnp.round(values[:, i]), 0, count - 1).astype(jnp.int32)
      # One-hot products keep per-example gradients dense and cheap under vmap.
      rows.append(nn.one_hot(index, count) @ table[first : first + count])
      first += count
    return jnp.stack(rows, 1)

  def _token(self, name, num):
    return self.param(name, uniform, (num, self.width), 1.0)
