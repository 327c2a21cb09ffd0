"""Blocks of voxels as channels: x (b,*space,c) <-> (b,*space/s,prod(s) c)."""

import math

import jax
import jax.numpy as jnp

from ldm_jax.types import Shape


def to_blocks(x: jax.Array, block: Shape) -> jax.Array:
  """(b,*space,c) -> (b,*space/s,prod(s) c), the channels of a voxel side by side.

  Raises:
    ValueError: a block of other axes, or one that does not divide the space.
  """
  space = x.shape[1:-1]
  if len(space) != len(block) or any(n % s for n, s in zip(space, block, strict=True)):
    raise ValueError(
      f'expected volumes (b,*space,c) of whole blocks of {block}, got {x.shape}; '
      'change data.preprocess.shape, or strides and patch of autoencoder.model'
    )
  parts = [size for n, s in zip(space, block, strict=True) for size in (n // s, s)]
  x = x.reshape(len(x), *parts, x.shape[-1])
  cells, inner = range(1, x.ndim - 1, 2), range(2, x.ndim - 1, 2)
  x = x.transpose(0, *cells, *inner, x.ndim - 1)
  return x.reshape(*x.shape[: 1 + len(block)], -1)


def from_blocks(x: jax.Array, block: Shape) -> jax.Array:
  """The inverse of `to_blocks`: (b,*cells,prod(s) c) -> (b,*cells*s,c)."""
  cells, num = x.shape[1:-1], len(block)
  x = x.reshape(*x.shape[:-1], *block, x.shape[-1] // math.prod(block))
  order = [axis for i in range(num) for axis in (1 + i, 1 + num + i)]
  x = x.transpose(0, *order, x.ndim - 1)
  space = [n * s for n, s in zip(cells, block, strict=True)]
  return x.reshape(len(x), *space, x.shape[-1])


def filled(x: jax.Array, block: Shape) -> jax.Array:
  """x (b,*space,c) with zeros behind each axis, up to whole blocks."""
  behind = [(0, -n % s) for n, s in zip(x.shape[1:-1], block, strict=True)]
  return jnp.pad(x, [(0, 0), *behind, (0, 0)])


def cropped(x: jax.Array, space: Shape) -> jax.Array:
  """The first voxels of each axis: undoes `filled`, (b,*larger,c) -> (b,*space,c)."""
  return x[(slice(None), *(slice(n) for n in space))]
