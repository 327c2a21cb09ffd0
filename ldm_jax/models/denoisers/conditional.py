"""Conditional denoisers: z_t (b,*space,c), t (b,), condition -> (b,*space,c).

A condition is one vector: the encoded attributes (k), followed by the embedded tokens
(m e) if text is used, followed by the columns of an earlier scan (`earlier_visit`) if
there is one; NaN for whatever is missing. It is given to the network in any of three
ways: as tokens for attention, as an embedding added to the embedding of t, as channels
beside z_t [Pinaya22, arXiv 2209.07162]. A label map (`label_mask`), whose columns are
the last ones, is always given as channels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from ldm_jax.models.conditions import earlier_visit, label_mask
from ldm_jax.models.conditions.attribute_encoder import AttributeEncoder
from ldm_jax.models.conditions.new_token import Concept
from ldm_jax.models.conditions.text_encoder import TextEncoder
from ldm_jax.models.denoisers.daum24 import SliceUNet
from ldm_jax.models.denoisers.dit import DiT
from ldm_jax.models.denoisers.unet import UNet
from ldm_jax.models.layers import ZEROS, Dense, Network
from ldm_jax.types import Array

NETWORKS = {'unet': UNet, 'dit': DiT, 'daum24': SliceUNet}
WAYS = ('attention', 'embedding', 'channels', 'mask')


class ConditionalDenoiser(Network):
  """Network `unet` or `dit` with the encoders `conditioner` and `text_conditioner`.

  Attributes:
    num_categories: per attribute, 0 if continuous (Schema.num_categories).
    in_channels, out_channels: of z_t and of the output.
    conditioner_kwargs: options of AttributeEncoder. unet_kwargs: of the network. The
      widths that both share (embedding_dim, context_dim) follow from them.
    kind: a key of NETWORKS.
    by: how conditions are given to the network, some of WAYS; 'mask' adds a label map.
    num_labels: classes of the label map, where `by` has one.
    text_shape: (m,e) of the embedded text behind the attributes, None for no text.
    gap: how the years since an earlier scan are encoded, of `earlier_visit.GAPS`; None
      for a network without pairs.
    of_changes: if there is a source, z_t is a noised change to it; then the source is
      the input of the network's first layer, and z_t that of `source_in`.
  """

  num_categories: tuple
  in_channels: int = 4
  out_channels: int = 4
  conditioner_kwargs: Mapping = FrozenDict()
  unet_kwargs: Mapping = FrozenDict()
  kind: str = 'unet'
  by: tuple = ('attention', 'embedding')
  text_shape: tuple | None = None
  gap: str | None = None
  of_changes: bool = False
  num_labels: int = 0

  def setup(self) -> None:
    self._check()
    width = self.conditioner_kwargs.get('width', AttributeEncoder.width)
    extra = 2 * len(self.num_categories) if 'channels' in self.by else 0
    extra += self.num_labels if 'mask' in self.by else 0
    network = NETWORKS[self.kind](
      in_channels=self.in_channels + extra,
      out_channels=self.out_channels,
      context_dim=width if 'attention' in self.by else None,
      **self.unet_kwargs,
    )
    setattr(self, self._name, network)
    dtype = self.unet_kwargs.get('dtype')
    embedding_dim = network.embedding_dim if 'embedding' in self.by else None
    if self._has_tokens:
      self.conditioner = AttributeEncoder(
        self.num_categories,
        embedding_dim=embedding_dim,
        dtype=dtype,
        **self.conditioner_kwargs,
      )
    if self.text_shape:
      self.text_conditioner = TextEncoder(width, embedding_dim, dtype)
    if self.gap in earlier_visit.GAPS[1:]:
      self.source_gap = Dense(
        network.embedding_dim, use_bias=False, kernel_init=ZEROS, dtype=dtype
      )
    self.concept = Concept()

  def __call__(
    self,
    z_t: jax.Array,
    t: Array,
    attributes: jax.Array,
    drop: Array | None = None,
    untold: Array | None = None,
  ) -> jax.Array:
    """Output (b,*space,out_channels).

    Args:
      z_t: (b,*space,in_channels). t: (b,) time steps.
      attributes: (b,k) encoded, NaN where missing; or (b,k + m e) with text, NaN where
        there is no token. Without the text's columns there is no text. For a network
        with a `gap` the columns of a pair may follow; without them there is no pair.
        Likewise the columns of a label map.
      drop: (b,) bool, True for examples without condition; None for none.
      untold: (b,) bool, True for examples without the new token (`new_token`); None for
        none.

    Raises: ValueError if the condition has another length.
    """
    mask: jax.Array | None = None
    if 'mask' in self.by:
      attributes, mask = label_mask.read(
        attributes, self.num_conditions, z_t.shape[1:-1], self.num_labels
      )
    attributes, source, of_gap = self._pair(attributes, z_t.shape[1:], drop)
    if source is not None:
      z_t, source = earlier_visit.inputs(z_t, source, self.of_changes)
    context, embedding = self.describe(attributes, drop)
    context = context if 'attention' in self.by else None
    context, embedding = self.concept(context, embedding, _either(drop, untold))
    if 'channels' in self.by:
      attributes, _, _ = self._split(attributes)
      z_t = beside(z_t, as_channels(attributes, self.num_categories, drop))
    if mask is not None:
      shares = label_mask.dropped(mask, drop).astype(z_t.dtype)
      z_t = jnp.concatenate([z_t, shares], -1)
    if of_gap is not None:
      embedding = of_gap if embedding is None else embedding + of_gap
    return getattr(self, self._name)(
      z_t, t, context=context, embedding=embedding, source=source
    )

  def describe(
    self, attributes: Array, drop: Array | None = None
  ) -> tuple[jax.Array | tuple[jax.Array, jax.Array] | None, jax.Array | None]:
    """Context and embedding (b,e) of a condition, None if there is none.

    Arguments as above; the context is (b,k,width), or with text (tokens, mask). A new
    token is not included.
    """
    attributes, text, mask = self._split(attributes)
    context: Any = None
    embedding: Any = None
    if self._has_tokens:
      context, embedding = self.conditioner(attributes, drop)
    if text is not None and context is not None:
      tokens, mask, of_text = self.text_conditioner(text, mask, drop)
      known = jnp.ones(context.shape[:2], bool)
      context = (
        jnp.concatenate([context, tokens], 1),
        jnp.concatenate([known, mask], 1),
      )
      embedding = None if embedding is None else embedding + of_text
    return context, embedding

  @property
  def num_conditions(self) -> int:
    """Columns of a condition without those of a pair or of a label map."""
    return len(self.num_categories) + math.prod(self.text_shape or (0,))

  @property
  def _name(self):
    return 'dit' if self.kind == 'dit' else 'unet'

  @property
  def _has_tokens(self):
    return bool({'attention', 'embedding'} & set(self.by))

  def _pair(self, condition, latent_shape, drop):
    """Condition without a pair's columns; source and embedding of the gap or None."""
    own, sizes = self.num_conditions, condition.shape[1:]
    if self.gap is None or sizes != (own + earlier_visit.size(latent_shape),):
      return condition, None, None
    years, source = earlier_visit.read(condition[:, own:], latent_shape)
    if self.gap == 'none':
      return condition[:, :own], source, None
    # The years are part of the condition and dropped with it, the source is not.
    years = years if drop is None else jnp.where(drop, jnp.nan, years)
    features = earlier_visit.gap_features(years, self.gap)
    return condition[:, :own], source, self.source_gap(features)

  def _split(self, condition):
    """Attributes (b,k), text (b,m,e) and the mask of its tokens (b,m)."""
    k, shape = len(self.num_categories), self.text_shape
    length = math.prod(shape) if shape else 0
    if condition.ndim != 2 or condition.shape[1] not in (k, k + length):
      raise ValueError(
        f'expected conditions (b, {k})'
        + (f' or, with text {shape}, (b, {k + length})' if shape else '')
        + f', got {condition.shape}; encode them with the schema of this network'
        + (' and diffusion.text' if shape else '')
      )
    if not shape:
      return condition, None, None
    text = condition[:, k:]
    if not text.shape[1]:
      text = jnp.full((condition.shape[0], length), jnp.nan)
    text = text.reshape(-1, *shape)
    return condition[:, :k], text, ~jnp.isnan(text).any(-1)

  def _check(self):
    if self.kind not in NETWORKS:
      raise ValueError(
        f'kind is {self.kind!r}, expected one of {tuple(NETWORKS)}; change '
        'diffusion.model.kind'
      )
    if not self.by or not set(self.by) <= set(WAYS):
      raise ValueError(
        f'by is {self.by}, expected at least one of {WAYS}; change '
        'diffusion.conditioner.by'
      )
    if self.text_shape and not self._has_tokens:
      raise ValueError(
        f'by is {self.by}, but text cannot be given as channels; add attention or '
        'embedding to diffusion.conditioner.by'
      )


def _either(one, other):
  """The union of two masks (b,), either of which may be None."""
  return other if one is None else one if other is None else one | other


def as_channels(
  attributes: Array, num_categories: Sequence[int], drop: Array | None = None
) -> jax.Array:
  """Values scaled to [0, 1], then 1 for each that is known: (b,k) -> (b,2k).

  Continuous attributes are scaled from [-1, 1], categories by their number
  [Pinaya22]; missing and dropped ones are 0 in both halves.
  """
  known = ~jnp.isnan(attributes)
  if drop is not None:
    known = known & ~drop[:, None]
  scale = jnp.array([1 / max(n - 1, 1) if n else 0.5 for n in num_categories])
  offset = jnp.array([0.0 if n else 0.5 for n in num_categories])
  values = jnp.where(known, attributes, 0.0) * scale + offset
  values = jnp.where(known, values, 0.0)
  return jnp.concatenate([values, known.astype(values.dtype)], -1)


def beside(z: jax.Array, channels: jax.Array) -> jax.Array:
  """z (b,*space,c) with channels (b,n) at every voxel: (b,*space,c+n)."""
  channels = jnp.expand_dims(channels.astype(z.dtype), range(1, z.ndim - 1))
  channels = jnp.broadcast_to(channels, (*z.shape[:-1], channels.shape[-1]))
  return jnp.concatenate([z, channels], -1)
