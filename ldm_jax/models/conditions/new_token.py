"""A learned token for a cohort: (n,width) beside the network's own parameters.

[Gal22] Textual inversion, arXiv 2208.01618, adds a word to a text-to-image network that
stands for what the network is fine-tuned on. Here conditions reach a network in two
ways, as context for attention and as an embedding added to the embedding of t, so the
new token has two parts: `concept/tokens` are appended to the context,
`concept/embedding` is added to the embedding. As with adapters there is no option for
it: a network has a new token if its parameters contain one. Without these parameters
the network generates the class that it was pre-trained on.
"""

import re
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.types import Array

TOKENS, EMBEDDING = 'tokens', 'embedding'
PREFIX = 'concept/'
# Layers that read the context: keys and values of cross-attention.
READERS = r'/(attn2|cross_attention)/to_[kv]/'
POOLED = 'conditioner/embed_2/kernel'
# Standard deviation of the initial values about `like`, as is usual for word
# embeddings: small compared with the tokens of attributes (about 1), and no two equal.
SPREAD = 0.02


class Concept(nn.Module):
  """Adds the new token to a condition, if the parameters contain one."""

  def __call__(
    self, context: Array | None, embedding: Array | None, drop: Array | None = None
  ) -> tuple[Array | None, Array | None]:
    """(context, embedding) with the new token; unchanged if there is none.

    Args:
      context: (b,m,width) or (tokens, mask (b,m)); None if the network has no
        cross-attention.
      embedding: (b,e) or None.
      drop: (b,) bool, True for examples without the new token: those without a
        condition (an empty prompt has no words either), and those of the class that the
        network was pre-trained on. None for no such example.
    """
    if context is not None and self.has_variable('params', TOKENS):
      tokens, mask = context if isinstance(context, tuple) else (context, None)
      new: jax.Array = self.get_variable('params', TOKENS).astype(tokens.dtype)
      mask = jnp.ones(tokens.shape[:2], bool) if mask is None else mask
      is_used = jnp.ones(len(tokens), bool) if drop is None else ~drop
      context = (
        jnp.concatenate([tokens, jnp.broadcast_to(new, (len(tokens), *new.shape))], 1),
        jnp.concatenate([mask, jnp.repeat(is_used[:, None], len(new), 1)], 1),
      )
    if embedding is not None and self.has_variable('params', EMBEDDING):
      share: jax.Array = self.get_variable('params', EMBEDDING).astype(embedding.dtype)
      share = jnp.broadcast_to(share, embedding.shape)
      share = share if drop is None else jnp.where(drop[:, None], 0, share)
      embedding = embedding + share
    return context, embedding


def create(
  params: Mapping[str, Array], key: jax.Array, num: int, like: Array | None = None
) -> dict[str, jax.Array]:
  """Initial parameters of a new token, one for each way in which conditions are read.

  Args:
    params: flat dict of the network's parameters, or of their shapes.
    key: PRNG key.
    num: number of tokens.
    like: (width,) mean of the initial tokens; None for zero, which has little effect
      beside other tokens. The embedding starts at zero, so that it is unchanged.

  Returns:
    Flat dict with one entry or two.

  Raises:
    ValueError: if the network reads neither a context nor an embedding.
  """
  new = {}
  readers = [path for path in params if re.search(f'{READERS}kernel$', path)]
  if readers:
    width = params[readers[0]].shape[0]
    tokens = SPREAD * jax.random.normal(key, (num, width))
    new[PREFIX + TOKENS] = tokens if like is None else tokens + like
  if POOLED in params:
    new[PREFIX + EMBEDDING] = jnp.zeros(params[POOLED].shape[-1])
  if not new:
    raise ValueError(
      'config.adapt.method has a new token, but this network does not read tokens: '
      "diffusion.conditioner.by must contain 'embedding', or 'attention' for a network "
      'with attention (diffusion.model.attention_levels or middle_attention).'
    )
  return new
