"""Volumes as stacks of slices, for two-dimensional networks (2.5D)."""

import jax.numpy as jnp


def slices(x, axis):
  """(b,d,h,w,c) -> (b * n,*two other axes,c), the n slices along an axis 0, 1 or 2."""
  x = jnp.moveaxis(x, axis + 1, 1)
  return x.reshape(-1, *x.shape[2:])


def views(x, planes):
  """What a network of 2D (planes, a tuple of axes) or 3D (no planes) sees of x.

  Raises:
    ValueError: axes that x (b,d,h,w,c) does not have.
  """
  if not planes:
    return [x]
  if x.ndim != 5 or not set(planes) <= {0, 1, 2}:
    raise ValueError(
      f'planes are {planes} for an array {x.shape}; slices are cut along the axes 0, 1 '
      'and 2 of volumes (b,d,h,w,c); leave planes empty for images'
    )
  return [slices(x, axis) for axis in planes]


def per_example(values, num_examples):
  """(b * n, ...) -> mean over everything but the examples (b,)."""
  return values.reshape(num_examples, -1).mean(1)
