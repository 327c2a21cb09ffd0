"""Volumes -> latents -> their normalised form and back, in batches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.store.split import Split
from ldm_jax.types import Array, Progress


def apply_in_batches(
  function: Callable[[np.ndarray], Array], array: Array, batch_size: int
) -> np.ndarray:
  """function over (n,...) in batches of one shape (the last one padded)."""
  results = []
  for start in range(0, len(array), batch_size):
    part = np.asarray(array[start : start + batch_size])
    padding = [(0, batch_size - len(part))] + [(0, 0)] * (part.ndim - 1)
    results.append(np.asarray(function(np.pad(part, padding)))[: len(part)])
  return np.concatenate(results)


def encode_split(
  encoder: Callable[[np.ndarray], Array],
  split: Split,
  batch_size: int,
  advance: Progress,
) -> np.ndarray:
  """Latents (n,...,c) of all entries of a split, read batch by batch."""
  latents = []
  for start in range(0, len(split), batch_size):
    chosen = np.arange(start, min(start + batch_size, len(split)))
    latents.append(apply_in_batches(encoder, split.volumes(chosen), batch_size))
    advance(int(chosen[-1]) + 1)
  return np.concatenate(latents)


def normalise(z: Array, mean: Array, std: Array) -> jax.Array:
  """Returns (z - mean) / std for latents (..., c)."""
  return (z - jnp.asarray(mean, z.dtype)) / jnp.asarray(std, z.dtype)


def denormalise(z: Array, mean: Array, std: Array) -> jax.Array:
  """Inverse of `normalise`."""
  return z * jnp.asarray(std, z.dtype) + jnp.asarray(mean, z.dtype)
