"""A word for a cohort: new tokens (n,width) beside the network's own parameters.

[Gal22] Textual inversion, arXiv 2208.01618, gives a text-to-image network a word that
stands for what it is fine-tuned on. Here conditions reach a network as context that
attention reads and as an embedding that joins the embedding of t, so the word has a
share in each: `concept/tokens` stand behind the context, `concept/embedding` is added.
As with adapters a network needs no option: it has the word if its parameters hold it.
Without these parameters the same network speaks of the class it was pre-trained on.
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp

TOKENS, EMBEDDING = 'tokens', 'embedding'
PREFIX = 'concept/'
# Layers that read the context: keys and values of cross-attention.
READERS = r'/(attn2|cross_attention)/to_[kv]/'
POOLED = 'conditioner/embed_2/kernel'
# Standard deviation of a new token about where it starts, as word embeddings have it:
# small beside the tokens of attributes (about 1), and no two tokens are alike.
SPREAD = 0.02


class Concept(nn.Module):
  """Lets the word join a condition, where the parameters hold one."""

  def __call__(self, context, embedding, drop=None):
    """(context, embedding) with the word, or as they came where there is none.

    Args:
      context: (b,m,width) or (tokens, mask (b,m)); None where nothing reads it.
      embedding: (b,e) or None.
      drop: (b,) bool, True where there is no word: where the condition is withheld, as
        an empty prompt has none, and where the class is meant. None for nowhere.
    """
    if context is not None and self.has_variable('params', TOKENS):
      tokens, mask = context if isinstance(context, tuple) else (context, None)
      new = self.get_variable('params', TOKENS).astype(tokens.dtype)
      mask = jnp.ones(tokens.shape[:2], bool) if mask is None else mask
      said = jnp.ones(len(tokens), bool) if drop is None else ~drop
      context = (
        jnp.concatenate([tokens, jnp.broadcast_to(new, (len(tokens), *new.shape))], 1),
        jnp.concatenate([mask, jnp.repeat(said[:, None], len(new), 1)], 1),
      )
    if embedding is not None and self.has_variable('params', EMBEDDING):
      share = self.get_variable('params', EMBEDDING).astype(embedding.dtype)
      share = jnp.broadcast_to(share, embedding.shape)
      share = share if drop is None else jnp.where(drop[:, None], 0, share)
      embedding = embedding + share
    return context, embedding


def is_new(path):
  """Whether a parameter belongs to the word."""
  return path.startswith(PREFIX)


def create(params, key, num, like=None):
  """The word's parameters, for the ways in which conditions reach this network.

  Args:
    params: flat dict of the network's parameters, or of their shapes.
    key: PRNG key.
    num: tokens.
    like: (width,) that the tokens start about; None is zero, a token that weighs next
      to nothing beside others. The share of the embedding starts at zero: what the
      attributes say in it is as before.

  Returns:
    Flat dict, of one entry or two.

  Raises:
    ValueError: if conditions reach the network by neither way.
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
      'config.adapt.method has a new token, but nothing in this network would read it: '
      "diffusion.conditioner.by needs 'embedding', or 'attention' and a network that "
      'attends somewhere (diffusion.model.attention_levels or middle_attention).'
    )
  return new
