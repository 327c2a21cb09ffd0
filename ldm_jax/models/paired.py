"""What a denoiser is told of a pair: an earlier scan's latent and the years since.

[Brooks23] InstructPix2Pix, arXiv 2211.09800: the source latent joins z_t as further
input channels, whose weights start at zero. Here they are a layer `source_in` of their
own beside the network's first one (a convolution of both side by side is the sum of one
each), so that the pre-trained weights stay as they are and a method that trains few
parameters trains these few more. The years join the embedding of the time through
`source_gap`, zero at the start too: one more token, even of zeros, would change the
softmax of attention, an embedding of zeros changes nothing, not a bit. (A network of
changes has the two inputs the other way round: `inputs`.)

A pair's part stands behind all else in a condition: (b, 1 + n), the years, then the n
numbers of the source latent; NaN in either means that it is not there. Both layers have
no bias: without a source and without years the network is the ordinary one.
"""

import math

import jax
import jax.numpy as jnp

from ldm_jax.data.prompts import SPAN_WORDS

GAPS = ('none', 'number', 'bin')
SOURCE, GAP = 'source_in', 'source_gap'
YEARS_SCALE = 10.0
# Sines of the years, quarter periods of 20 and of 10 years.
FREQUENCIES = (math.pi / 4, math.pi / 2)


def size(latent_shape):
  """Columns of a pair's part for latents (...,c)."""
  return 1 + math.prod(latent_shape)


def join(years, sources):
  """A pair's part (b,1 + n) of years (b,) and source latents (b,...,c)."""
  years, sources = jnp.asarray(years, jnp.float32), jnp.asarray(sources, jnp.float32)
  return jnp.concatenate([years[:, None], sources.reshape(len(sources), -1)], 1)


def read(columns, latent_shape):
  """Years (b,) and source (b,...,c) of a pair's part, NaN where there is none."""
  return columns[:, 0], columns[:, 1:].reshape(-1, *latent_shape)


def inputs(z_t, source, of_changes):
  """What the network's first layer and `source_in` read; without a source z_t and 0.

  A network of scans reads z_t and the source. One of changes reads the source and the
  noised change: its pre-trained layers go on reading a scan, and what their first steps
  see is not noise alone.
  """
  unknown = _unknown(source)
  if not of_changes:
    return z_t, jnp.where(unknown, 0.0, source)
  return jnp.where(unknown, z_t, source), jnp.where(unknown, 0.0, z_t)


def change(z, columns, scale):
  """Latents (b,...,c) as changes from their sources in units of `scale`.

  What has no source stays as it is.
  """
  source = columns[:, 1:].reshape(z.shape)
  return jnp.where(_unknown(source), z, (z - source) / scale)


def _unknown(source):
  return jnp.isnan(source).any(tuple(range(1, source.ndim)), keepdims=True)


def gap_features(years, kind):
  """Years (b,) as features (b,f), zero for no years and for years that are unknown.

  They are odd functions: the way back is the opposite of the way there.

  Args:
    kind: 'number', years and two sines of them; 'bin', which of the three spans of
      `prompts.ageing` (slightly, moderately, significantly older) it is.

  Raises:
    ValueError: an unknown kind.
  """
  years = jnp.where(jnp.isnan(years), 0.0, years)
  if kind == 'number':
    scaled = years / YEARS_SCALE
    sines = [jnp.sin(frequency * scaled) for frequency in FREQUENCIES]
    return jnp.stack([scaled, *sines], -1)
  if kind == 'bin':
    (low, _), (high, _), _ = SPAN_WORDS
    span = (jnp.abs(years) >= low).astype(int) + (jnp.abs(years) > high)
    return jax.nn.one_hot(span, len(SPAN_WORDS)) * jnp.sign(years)[:, None]
  raise ValueError(
    f"the gap of a pair is {kind!r}; required is 'number' or 'bin', or 'none' for a "
    'network that is not told. Change adapt.pairs.gap.'
  )


def is_paired(path):
  """Whether a parameter's path names what reads a pair."""
  return path.endswith((f'/{SOURCE}/kernel', f'{GAP}/kernel'))


def added(module, latent_shape):
  """Flat parameters that a network needs beside its own to read pairs: all zero.

  Args:
    module: models.conditional.ConditionalDenoiser with a `gap`.
    latent_shape: (...,c) of one latent.
  """
  width = module.num_conditions + size(latent_shape)
  shapes = jax.eval_shape(
    module.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *latent_shape), jnp.float32),
    jax.ShapeDtypeStruct((1,), jnp.int32),
    jax.ShapeDtypeStruct((1, width), jnp.float32),
    jax.ShapeDtypeStruct((1,), bool),
  )
  found = jax.tree_util.tree_flatten_with_path(shapes['params'])[0]
  flat = {'/'.join(key.key for key in path): leaf for path, leaf in found}
  return {
    path: jnp.zeros(leaf.shape, leaf.dtype)
    for path, leaf in flat.items()
    if is_paired(path)
  }
