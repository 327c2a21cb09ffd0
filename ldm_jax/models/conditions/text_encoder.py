"""Embedded text as tokens and an embedding: (b,m,e) -> (b,m,width), (b,k).

There is no text encoder here: token embeddings are computed once, by any model, and
stored with the patients. [CFG] Ho and Salimans 2022, arXiv 2207.12598.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.init import uniform
from ldm_jax.models.layers import Dense
from ldm_jax.types import Array


class TextEncoder(nn.Module):
  """Projects token embeddings to the width of the context.

  Attributes:
    width: of a token.
    embedding_dim: of the pooled embedding, None for none.
  """

  width: int = 16
  embedding_dim: int | None = None
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, text: jax.Array, mask: Array | None = None, drop: Array | None = None
  ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Tokens (b,m,width), their mask (b,m) and embedding (b,embedding_dim) or None.

    Args:
      text: (b,m,e) token embeddings.
      mask: (b,m) bool, False for padding, which is never read; None for no padding. An
        example without any token has no text and gets one learned token instead.
      drop: (b,) bool, True for examples whose text is dropped [CFG]: they get another
        learned token.

    Raises: ValueError if the text has another number of axes.
    """
    if text.ndim != 3:
      raise ValueError(
        f'expected text (b,m,e), got {text.shape}; give token embeddings, one row per '
        'token, and a mask for padding'
      )
    mask = jnp.ones(text.shape[:2], bool) if mask is None else mask.astype(bool)
    if drop is None:
      drop = jnp.zeros(text.shape[0], bool)
    dense = Dense(self.width, dtype=self.dtype, name='proj')
    # Values in the padding, NaN included, must not enter the gradient.
    tokens = dense(jnp.where(mask[..., None], text, 0.0))
    missing = self.param('missing', uniform, (self.width,), 1.0)
    null = self.param('null', uniform, (self.width,), 1.0)
    absent = ~mask.any(1)
    single = jnp.where(drop[:, None], null, missing)
    alone = drop | absent
    is_first = jnp.arange(text.shape[1]) == 0
    tokens = jnp.where(
      alone[:, None, None] & is_first[:, None],
      single[:, None].astype(tokens.dtype),
      tokens,
    )
    mask = jnp.where(alone[:, None], is_first, mask)
    if self.embedding_dim is None:
      return tokens, mask, None
    weights = mask[..., None].astype(jnp.float32)
    mean = (tokens.astype(jnp.float32) * weights).sum(1) / weights.sum(1)
    hidden = nn.silu(Dense(self.embedding_dim, dtype=self.dtype, name='embed_0')(mean))
    return (
      tokens,
      mask,
      Dense(self.embedding_dim, dtype=self.dtype, name='embed_2')(hidden),
    )
