"""Convolution and its input's gradient as matrix products: (b,*space,c) arrays.

A convolution is a sum over the kernel's taps of a shifted slice of the input times one
matrix (c_in, c_out). Strides, kernel sizes and margins are tuples with one entry per
spatial axis; inputs called padded carry their border already.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ldm_jax.models.conv import onednn
from ldm_jax.types import Shape

# Zeros before and behind each spatial axis.
Pairs = Sequence[tuple[int, int]]

# Taps are folded into the contraction while it stays this narrow: products of fewer
# columns leave the CPU's matrix units idle, wider ones only add copies.
FOLDED_WIDTH = 96


def subsample(x: jax.Array, strides: Shape) -> jax.Array:
  """Every stride-th position of x (b,*space,c) along each spatial axis."""
  return x[(slice(None), *(slice(None, None, s) for s in strides))]


def pad(x: jax.Array, pairs: Pairs) -> jax.Array:
  """Zeros around the spatial axes; negative numbers crop."""
  config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
  return lax.pad(x, jnp.zeros((), x.dtype), config)


def _output_size(space, size, strides):
  return tuple((n - k) // s + 1 for n, k, s in zip(space, size, strides, strict=True))


def correlate(
  x: jax.Array,
  kernel: jax.Array,
  strides: Shape,
  lowering: str,
  pairs: Pairs | None = None,
) -> jax.Array:
  """Convolution of x with pairs of zeros around it; None: x is padded already."""
  size, dims = kernel.shape[:-2], kernel.ndim - 2
  pairs = ((0, 0),) * dims if pairs is None else pairs
  if lowering in onednn.PRODUCTS:
    return _correlate_onednn(x, kernel, strides, pairs, onednn.PRODUCTS[lowering])
  if lowering == 'planar' and dims == 3:
    return _correlate_planes(x, kernel, strides, pairs)
  if size == (1,) * dims:
    return subsample(pad(x, pairs), strides) @ kernel.reshape(kernel.shape[-2:])
  if lowering != 'shifted':
    axes = 'DHW'[-dims:]
    numbers = (f'N{axes}C', f'{axes}IO', f'N{axes}C')
    return lax.conv_general_dilated(
      x, kernel, strides, pairs, dimension_numbers=numbers
    )
  x = pad(x, pairs)
  out = _output_size(x.shape[1:-1], size, strides)
  x, kernel, strides = fold(x, kernel, out, strides, FOLDED_WIDTH)
  size = kernel.shape[:-2]
  matrices = kernel.reshape(-1, *kernel.shape[-2:])

  def product(tap):
    return jnp.matmul(
      shifted(x, tap, size, out, strides),
      matrices[tap],
      preferred_element_type=jnp.float32,
    )

  def add(tap, y):
    return y + product(tap)

  # The sum starts from the first product, so that it carries the product's type and
  # varying axes inside shard_map.
  y = lax.fori_loop(1, len(matrices), add, product(jnp.int32(0)))
  return y.astype(x.dtype)


def _correlate_onednn(x, kernel, strides, pairs, dtype):
  """The call on factors of dtype; margins unknown to it are laid around x before."""
  sides = list(zip(kernel.shape, pairs, strict=False))
  beside = [tuple(n if n < 0 or n >= k else 0 for n in pair) for k, pair in sides]
  if any(map(any, beside)):
    x = pad(x, beside)
  within = tuple(
    tuple(n - m for n, m in zip(pair, outer, strict=True))
    for pair, outer in zip(pairs, beside, strict=True)
  )
  y = onednn.correlate(x.astype(dtype), kernel.astype(dtype), strides, within)
  return y.astype(x.dtype)


def _correlate_planes(x, kernel, strides, pairs):
  """A 2D convolution of all planes for each tap of the leading axis, summed.

  The planes' own borders are left to XLA: three times faster than planes that come
  with them (measured on two cores).
  """
  x = pad(x, (pairs[0], (0, 0), (0, 0)))
  (depth,) = _output_size(x.shape[1:2], kernel.shape[:1], strides[:1])
  total = 0.0
  for tap, plane in enumerate(kernel):
    last = tap + 1 + (depth - 1) * strides[0]
    planes = lax.slice_in_dim(x, tap, last, strides[0], 1)
    planes = planes.reshape(-1, *planes.shape[2:])
    y = correlate(planes, plane, strides[1:], 'planar', pairs[1:])
    total = total + y.astype(jnp.float32)
  return total.reshape(x.shape[0], depth, *total.shape[1:]).astype(x.dtype)


def fold(
  x: jax.Array, kernel: jax.Array, out: Shape, strides: Shape, width: float
) -> tuple[jax.Array, jax.Array, Shape]:
  """Moves trailing kernel axes into the channels while these stay within width."""
  for axis in reversed(range(kernel.ndim - 2)):
    k, s = kernel.shape[axis], strides[axis]
    if k * x.shape[-1] > width:
      break
    n = 1 + (out[axis] - 1) * s
    taps = [lax.slice_in_dim(x, i, i + n, s, axis + 1) for i in range(k)]
    x = jnp.concatenate(taps, -1)
    moved = jnp.expand_dims(kernel, axis)  # (*k, 1, k_axis, ..., c_in, c_out)
    kernel = jnp.moveaxis(moved, axis + 1, -3)
    kernel = kernel.reshape(*kernel.shape[:-3], -1, kernel.shape[-1])
    strides = (*strides[:axis], 1, *strides[axis + 1 :])
  return x, kernel, strides


def unfold(x: jax.Array, size: Shape, strides: Shape) -> jax.Array:
  """Windows (b,*out,k_1 ... k_n c) of the padded input, the taps in row-major order."""
  out = _output_size(x.shape[1:-1], size, strides)
  kernel = jnp.zeros((*size, x.shape[-1], 1), x.dtype)
  return fold(x, kernel, out, strides, math.inf)[0]


def shifted(
  x: jax.Array, tap: jax.Array, size: Shape, out: Shape, strides: Shape
) -> jax.Array:
  """The inputs (b, *out, c) that one tap, counted in row-major order, meets."""
  start = [jnp.zeros((), tap.dtype)]
  for k in reversed(size):
    start.insert(0, tap % k)
    tap = tap // k
  spans = [1 + (n - 1) * s for n, s in zip(out, strides, strict=True)]
  start.insert(0, jnp.zeros((), tap.dtype))
  window = lax.dynamic_slice(x, start, (x.shape[0], *spans, x.shape[-1]))
  return subsample(window, strides)


def input_gradient(
  g: jax.Array,
  kernel: jax.Array,
  strides: Shape,
  pairs: Pairs,
  shape: Shape,
  lowering: str,
) -> jax.Array:
  """Transposed convolution as one ordinary convolution per phase of the stride.

  The padded input's position u = s q + p meets only the taps p, p + s, ...: no zeros
  are stuffed between the gradients and no product with zero is computed.
  """
  first, count = [], []
  for n, s, (low, _) in zip(shape[1:-1], strides, pairs, strict=True):
    first.append(low // s)
    count.append(-(-(low + n) // s) - low // s)
  phases = []
  for phase in itertools.product(*map(range, strides)):
    taps = tuple(slice(p, None, s) for p, s in zip(phase, strides, strict=True))
    part = kernel[taps]
    if 0 in part.shape:
      phases.append(jnp.zeros((g.shape[0], *count, shape[-1]), g.dtype))
      continue
    part = jnp.swapaxes(jnp.flip(part, range(part.ndim - 2)), -1, -2)
    margins = [
      (m - 1 - q, q + n - o)
      for m, q, n, o in zip(part.shape, first, count, g.shape[1:-1], strict=False)
    ]
    phases.append(correlate(g, part, (1,) * len(strides), lowering, margins))
  if len(phases) == 1:
    return phases[0]
  return _interleave(phases, first, count, strides, pairs, shape)


def _interleave(phases, first, count, strides, pairs, shape):
  """Puts phase p at the positions s q + p and crops to the input's shape."""
  dims = len(strides)
  grid = jnp.stack(phases).reshape(*strides, shape[0], *count, shape[-1])
  order = [dims]
  for axis in range(dims):
    order += [dims + 1 + axis, axis]
  whole = [n * s for n, s in zip(count, strides, strict=True)]
  grid = grid.transpose(*order, 2 * dims + 1).reshape(shape[0], *whole, shape[-1])
  crop = [
    slice(low - q * s, low - q * s + n)
    for q, s, (low, _), n in zip(first, strides, pairs, shape[1:-1], strict=True)
  ]
  return grid[(slice(None), *crop)]
