"""Volumes as stacks of slices, for two-dimensional networks (2.5D)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ldm_jax.types import Array


def slices(x: Array, axis: int) -> Array:
  """(b,d,h,w,c) -> (b * n,*two other axes,c), the n slices along an axis 0, 1 or 2."""
  x = jnp.moveaxis(x, axis + 1, 1)
  return x.reshape(-1, *x.shape[2:])


def views(x: Array, planes: Sequence[int]) -> list[Array]:
  """Inputs of a network: [x], or for a 2D network the slices along each of the planes.

  Raises:
    ValueError: planes that are no axes of x (b,d,h,w,c).
  """
  if not planes:
    return [x]
  if x.ndim != 5 or not set(planes) <= {0, 1, 2}:
    raise ValueError(
      f'planes are {planes} for an array {x.shape}, expected some of the axes 0, 1 and '
      '2 of volumes (b,d,h,w,c); set planes to () for images'
    )
  return [slices(x, axis) for axis in planes]


def per_example(values: jax.Array, num_examples: int) -> jax.Array:
  """(b * n, ...) -> mean over everything but the examples (b,)."""
  return values.reshape(num_examples, -1).mean(1)
