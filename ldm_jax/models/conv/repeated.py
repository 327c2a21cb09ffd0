"""Convolution of repeated voxels: (b,*space,c_in) -> (b,*space*repeats,c_out).

Where every voxel is repeated twice along an axis, the three taps k0, k1, k2 of a kernel
cover only two distinct voxels: for the first copy of a voxel with the taps
(k0 | k1 + k2), for the second copy with (k0 + k1 | k2). So the product is computed on
the coarse grid, for both copies at once, with 2 taps in place of 3 along each axis:
less than a third of the arithmetic in 3D, and the same function up to rounding.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ldm_jax.models.conv.conv import Conv, convolve, fast_paths_are_on, padding_pairs
from ldm_jax.types import Array, Shape


def nearest(x: Array, repeats: Sequence[int], size: Shape | None = None) -> jax.Array:
  """Repeats the voxels of x (b,*space,c) along each axis, then crops to size."""
  for axis, r in enumerate(repeats, start=1):
    if r > 1:
      x = jnp.repeat(x, r, axis, total_repeat_length=r * x.shape[axis])
  if size is None:
    return x
  return x[(slice(None), *(slice(n) for n in size))]


def convolve_repeated(
  x: Array, kernel: Array, repeats: Sequence[int], lowering: str = 'auto'
) -> jax.Array:
  """`convolve(nearest(x, repeats), kernel)` without computing the repeated voxels.

  Kernels and repeats other than 3 and 2 are computed literally, and so is everything
  where the fast paths are off (`conv.fast_paths_are_on`).

  Args:
    x: (b,*space,c_in).
    kernel: (*k,c_in,c_out); padding is 'same'.
    repeats: one per axis.
    lowering: one of `conv.LOWERINGS`.

  Returns: (b,*space*repeats,c_out).
  """
  twice = [kernel.shape[axis] for axis, r in enumerate(repeats) if r > 1]
  fits = twice and set(repeats) <= {1, 2} and set(twice) == {3}
  if not fits or not fast_paths_are_on():
    return convolve(nearest(x, repeats), kernel, lowering=lowering)
  return _convolve_repeated(x, kernel, tuple(repeats), lowering)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_repeated(x, kernel, repeats, lowering):
  return _on_coarse_grid(x, kernel, repeats, lowering)


def _forward(x, kernel, repeats, lowering):
  return _on_coarse_grid(x, kernel, repeats, lowering), (x, kernel)


def _backward(repeats, lowering, residuals, g):
  x, kernel = residuals
  of_input = lambda x: _on_coarse_grid(x, kernel, repeats, lowering)
  of_kernel = functools.partial(_kernel_gradient, size=kernel.shape[:-2])
  grad_kernel = of_kernel(x, g, repeats=repeats, lowering=lowering)
  return jax.vjp(of_input, x)[1](g)[0], grad_kernel.astype(kernel.dtype)


_convolve_repeated.defvjp(_forward, _backward)


def _kernel_gradient(x, g, size, repeats, lowering):
  """Gradient of the kernel: on the coarse grid, under `vmap` on the fine grid.

  The coarse grid's kernel has several times as many entries, which costs more than it
  saves where one patient has few voxels.
  """

  @custom_vmap
  def gradient(x, g):
    shape = (*size, x.shape[-1], g.shape[-1])
    of_kernel = lambda kernel: _on_coarse_grid(x, kernel, repeats, lowering)
    return jax.vjp(of_kernel, jnp.zeros(shape, x.dtype))[1](g)[0]

  @gradient.def_vmap
  def _(axis_size, in_batched, x, g):
    def one(x, g):
      shape = (*size, x.shape[-1], g.shape[-1])
      fine = nearest(x, repeats)
      of_kernel = lambda kernel: convolve(fine, kernel, lowering=lowering)
      return jax.vjp(of_kernel, jnp.zeros(shape, x.dtype))[1](g)[0]

    axes = [0 if batched else None for batched in in_batched]
    return jax.vmap(one, axes, axis_size=axis_size)(x, g), True

  return gradient(x, g)


def _on_coarse_grid(x, kernel, repeats, lowering):
  axes = [axis for axis, r in enumerate(repeats) if r > 1]
  pairs = list(padding_pairs('same', kernel.shape[:-2]))
  for axis in axes:
    kernel = _halves(kernel, axis)
    pairs[axis] = (1, 1)
  num, features = len(axes), kernel.shape[-1]
  kernel = kernel.reshape(*kernel.shape[: -num - 1], -1)
  y = convolve(x, kernel, padding=tuple(pairs), lowering=lowering)
  return _interleave(y.reshape(*y.shape[:-1], *(2,) * num, features), axes)


def _halves(kernel, axis):
  """(...,3 taps,...,c_out) -> (...,2 taps,...,2 halves,c_out).

  A window of two voxels gives the second copy of its first voxel and the first copy of
  its second. Computed as sums of slices: a matrix product over three taps is slow on a
  CPU.
  """
  k0, k1, k2 = jnp.split(kernel, 3, axis)
  second = jnp.concatenate([k0 + k1, k2], axis)
  first = jnp.concatenate([k0, k1 + k2], axis)
  return jnp.stack([second, first], -2)


def _interleave(y, axes):
  """(b,*windows,*halves,c) -> (b,*fine,c): halves alternate, both ends are cropped."""
  dims = y.ndim - 2 - len(axes)
  order, size = [0], []
  for axis in range(dims):
    halves = [1 + dims + axes.index(axis)] if axis in axes else []
    order += [1 + axis, *halves]
    size.append(y.shape[1 + axis] * (1 + len(halves)))
  y = y.transpose(*order, y.ndim - 1).reshape(len(y), *size, y.shape[-1])
  crop = [slice(1, -1) if axis in axes else slice(None) for axis in range(dims)]
  return y[(slice(None), *crop)]


class RepeatedConv(Conv):
  """`Conv` of repeated voxels; parameters as those of `Conv`."""

  repeats: tuple = ()

  def convolve(self, x: Array, kernel: Array) -> jax.Array:
    """As `Conv.convolve`, of the repeated voxels."""
    return convolve_repeated(x, kernel, self.repeats, self.lowering)
