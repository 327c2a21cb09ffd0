"""The condition of a pair: the latent of an earlier scan and the years since.

[Brooks23] InstructPix2Pix, arXiv 2211.09800: the source latent is given as further
input channels beside z_t, whose weights are zero before training. Here they have their
own layer `source_in` beside the network's first one (a convolution of concatenated
channels is the sum of two convolutions), so that the pre-trained weights are unchanged
and methods that train few parameters can train this layer in addition. The years are
added to the embedding of t through `source_gap`, also zero before training: one more
token, even of zeros, would change the softmax of attention, but adding zeros to an
embedding leaves the output bit-identical. (A network of changes swaps the two inputs,
see `inputs`.)

The columns of a pair are the last ones of a condition: (b, 1 + n), the years, then the
n entries of the source latent; NaN in either means missing. Neither layer has a bias:
without source and years the network is the ordinary one.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax import prng
from ldm_jax.types import Array, Shape

GAPS = ('none', 'number', 'bin')
SOURCE, GAP = 'source_in', 'source_gap'
# Absolute years of the kind 'bin': below the first (slight ageing), up to the second
# (moderate), above (significant). [Yeganeh25] arXiv 2412.20651
SPAN_LIMITS = (5, 10)
YEARS_SCALE = 10.0
# Of sines of years / YEARS_SCALE, with quarter periods of 20 and 10 years.
FREQUENCIES = (math.pi / 4, math.pi / 2)


def size(latent_shape: Shape) -> int:
  """Number of a pair's columns for latents (...,c)."""
  return 1 + math.prod(latent_shape)


def join(years: Array, sources: Array) -> jax.Array:
  """A pair's columns (b,1 + n) of years (b,) and source latents (b,...,c)."""
  years, sources = jnp.asarray(years, jnp.float32), jnp.asarray(sources, jnp.float32)
  return jnp.concatenate([years[:, None], sources.reshape(len(sources), -1)], 1)


def read(columns: Array, latent_shape: Shape) -> tuple[Array, Array]:
  """Years (b,) and source (b,...,c) of a pair's columns, NaN where missing."""
  return columns[:, 0], columns[:, 1:].reshape(-1, *latent_shape)


def inputs(
  z_t: jax.Array, source: jax.Array, of_changes: bool
) -> tuple[jax.Array, jax.Array]:
  """Inputs of the network's first layer and of `source_in`; without source z_t and 0.

  For a network of scans: z_t and the source. For a network of changes: the source and
  the noised change, so that the input of its pre-trained layers is still a scan, and
  not only noise at the first steps.
  """
  unknown = _unknown(source)
  if not of_changes:
    return z_t, jnp.where(unknown, 0.0, source)
  return jnp.where(unknown, z_t, source), jnp.where(unknown, 0.0, z_t)


def change(z: jax.Array, columns: jax.Array, scale: Array) -> jax.Array:
  """Latents (b,...,c) as changes from their sources, divided by `scale`.

  Latents without a source are returned as they are.
  """
  source = columns[:, 1:].reshape(z.shape)
  return jnp.where(_unknown(source), z, (z - source) / scale)


def _unknown(source):
  return jnp.isnan(source).any(tuple(range(1, source.ndim)), keepdims=True)


def gap_features(years: jax.Array, kind: str) -> jax.Array:
  """Years (b,) as features (b,f), zero for zero years and for unknown (NaN) years.

  They are odd functions: going back in time has the opposite features.

  Args:
    years: between the source and the scan.
    kind: 'number', the years and two sines of them; 'bin', one-hot for the three spans
      of SPAN_LIMITS, with the sign of the years.

  Raises:
    ValueError: an unknown kind.
  """
  years = jnp.where(jnp.isnan(years), 0.0, years)
  if kind == 'number':
    scaled = years / YEARS_SCALE
    sines = [jnp.sin(frequency * scaled) for frequency in FREQUENCIES]
    return jnp.stack([scaled, *sines], -1)
  if kind == 'bin':
    low, high = SPAN_LIMITS
    span = (jnp.abs(years) >= low).astype(int) + (jnp.abs(years) > high)
    return jax.nn.one_hot(span, 1 + len(SPAN_LIMITS)) * jnp.sign(years)[:, None]
  raise ValueError(
    f"the gap of a pair is {kind!r}, expected 'number' or 'bin', or 'none' for a "
    'network that does not get the years. Change adapt.pairs.gap.'
  )


def is_paired(path: str) -> bool:
  """Whether a parameter belongs to the layers that read a pair."""
  return path.endswith((f'/{SOURCE}/kernel', f'{GAP}/kernel'))


def added(module: nn.Module, latent_shape: Shape) -> dict[str, jax.Array]:
  """Flat parameters that a network needs in addition to read pairs: all zero.

  Args:
    module: models.denoisers.conditional.ConditionalDenoiser with a `gap`.
    latent_shape: (...,c) of one latent.
  """
  width = module.num_conditions + size(latent_shape)
  shapes = jax.eval_shape(
    module.init,
    prng.key(0),
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
