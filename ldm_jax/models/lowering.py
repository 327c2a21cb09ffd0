"""Convolution and its two gradients as matrix products: (b,*space,c) arrays.

A convolution is a sum over the kernel's taps of a shifted slice of the input times one
matrix (c_in, c_out). Strides, kernel sizes and margins are tuples with one entry per
spatial axis; inputs called padded carry their border already.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from ldm_jax.models import onednn

# Taps are folded into the contraction while it stays this narrow: products of fewer
# columns leave the CPU's matrix units idle, wider ones only add copies.
FOLDED_WIDTH = 96
# A weight gradient is one tall product per tap, or one product per example and tap,
# which the cores share: the second from this many input channels on, unless the
# matrices are larger than what each is summed from (measured on two cores).
CHANNELS_FOR_BATCHED_PRODUCTS = 32
MATRIX_PER_VOXEL = 64
# Planes of fewer voxels make products too small for a loop over planes.
SMALLEST_PLANE = 128


def subsample(x, strides):
  return x[(slice(None), *(slice(None, None, s) for s in strides))]


def pad(x, pairs):
  """Zeros around the spatial axes; negative numbers crop."""
  config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
  return lax.pad(x, jnp.zeros((), x.dtype), config)


def _output_size(space, size, strides):
  return tuple((n - k) // s + 1 for n, k, s in zip(space, size, strides, strict=True))


def correlate(x, kernel, strides, lowering, pairs=None):
  """Convolution of x with pairs of zeros around it; None: x is padded already."""
  size, dims = kernel.shape[:-2], kernel.ndim - 2
  pairs = ((0, 0),) * dims if pairs is None else pairs
  if lowering == 'onednn':
    return _correlate_onednn(x, kernel, strides, pairs)
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
  x, kernel, strides = _fold(x, kernel, out, strides, FOLDED_WIDTH)
  size = kernel.shape[:-2]
  matrices = kernel.reshape(-1, *kernel.shape[-2:])

  def product(tap):
    return jnp.matmul(
      _shifted(x, tap, size, out, strides),
      matrices[tap],
      preferred_element_type=jnp.float32,
    )

  def add(tap, y):
    return y + product(tap)

  # The sum starts from the first product, so that it carries the product's type and
  # varying axes inside shard_map.
  y = lax.fori_loop(1, len(matrices), add, product(jnp.int32(0)))
  return y.astype(x.dtype)


def _correlate_onednn(x, kernel, strides, pairs):
  """The call in float32; margins that it does not know are laid around x before."""
  sides = list(zip(kernel.shape, pairs, strict=False))
  beside = [tuple(n if n < 0 or n >= k else 0 for n in pair) for k, pair in sides]
  if any(map(any, beside)):
    x = pad(x, beside)
  within = tuple(
    tuple(n - m for n, m in zip(pair, outer, strict=True))
    for pair, outer in zip(pairs, beside, strict=True)
  )
  x_32, kernel_32 = x.astype(jnp.float32), kernel.astype(jnp.float32)
  return onednn.correlate(x_32, kernel_32, strides, within).astype(x.dtype)


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


def _fold(x, kernel, out, strides, width):
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


def unfold(x, size, strides):
  """Windows (b,*out,k_1 ... k_n c) of the padded input, the taps in row-major order."""
  out = _output_size(x.shape[1:-1], size, strides)
  kernel = jnp.zeros((*size, x.shape[-1], 1), x.dtype)
  return _fold(x, kernel, out, strides, math.inf)[0]


def _shifted(x, tap, size, out, strides):
  """The inputs (b, *out, c) that one tap, counted in row-major order, meets."""
  start = [jnp.zeros((), tap.dtype)]
  for k in reversed(size):
    start.insert(0, tap % k)
    tap = tap // k
  spans = [1 + (n - 1) * s for n, s in zip(out, strides, strict=True)]
  start.insert(0, jnp.zeros((), tap.dtype))
  window = lax.dynamic_slice(x, start, (x.shape[0], *spans, x.shape[-1]))
  return subsample(window, strides)


def input_gradient(g, kernel, strides, pairs, shape, lowering):
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


def weight_gradient(x, g, size, strides):
  """Gradient (*size, c_in, c_out) from the padded input: one product per tap."""
  out, c_out = g.shape[1:-1], g.shape[-1]
  placeholder = jnp.zeros((*size, x.shape[-1], c_out), x.dtype)
  c_in = x.shape[-1]
  if math.prod(size) * c_in <= FOLDED_WIDTH:
    x, folded, strides = _fold(x, placeholder, out, strides, FOLDED_WIDTH)
    taps = folded.shape[:-2]
  else:
    taps = size
  small = c_in * c_out <= MATRIX_PER_VOXEL * math.prod(out)
  batched = c_in >= CHANNELS_FOR_BATCHED_PRODUCTS and small
  if batched:
    # Transposed once, before the loop: the barrier keeps it there.
    g = jnp.swapaxes(g.reshape(g.shape[0], -1, c_out), 1, 2)
    g = lax.optimization_barrier(g)
  else:
    g = g.reshape(-1, c_out)

  def product(_, tap):
    window = _shifted(x, tap, taps, out, strides)
    if batched:
      window = window.reshape(g.shape[0], -1, c_in)
      y = jnp.matmul(g, window, preferred_element_type=jnp.float32)
      return None, y.sum(0).T
    window = window.reshape(-1, x.shape[-1])
    return None, jnp.matmul(window.T, g, preferred_element_type=jnp.float32)

  _, matrices = lax.scan(product, None, jnp.arange(math.prod(taps)))
  return matrices.reshape(*size, c_in, c_out)


def planes_weight_gradient(x, g, size, strides):
  """`weight_gradient` with all taps of one plane in one product, which stays in cache.

  A padded input's plane meets the (k_0) planes of g that its leading taps lead to: a
  product (k_1 k_2 c_in, voxels) (voxels, k_0 c_out) each.
  """
  out = g.shape[1:-1]
  if not _has_planes(out, size, strides):
    return weight_gradient(x, g, size, strides)
  b, depth, c_in = x.shape[0], x.shape[1], x.shape[-1]
  c_out = g.shape[-1]
  k = size[0]
  g = pad(g, ((k - 1, k - 1), (0, 0), (0, 0)))
  offsets = list(itertools.product(range(size[1]), range(size[2])))

  def add(i, total):
    example, plane = i // depth, i % depth
    start = (example, plane, 0, 0, 0)
    window = lax.dynamic_slice(x, start, (1, 1, *x.shape[2:]))
    taps = [window[0, 0, j : j + out[1], m : m + out[2]] for j, m in offsets]
    inputs = jnp.concatenate(taps, -1).reshape(-1, len(offsets) * c_in)
    met = lax.dynamic_slice(g, start, (1, k, *g.shape[2:]))[0]
    met = jnp.moveaxis(met.reshape(k, -1, c_out), 0, 1).reshape(-1, k * c_out)
    return total + jnp.matmul(inputs.T, met, preferred_element_type=jnp.float32)

  # The first term starts the sum, so that it carries the right varying axes.
  total = lax.fori_loop(1, b * depth, add, add(jnp.int32(0), 0.0))
  total = total.reshape(*size[1:], c_in, k, c_out)
  return jnp.moveaxis(jnp.flip(total, -2), -2, 0)


def _has_planes(out, size, strides):
  whole = len(size) == 3 and set(strides) == {1}
  return whole and math.prod(out[1:]) >= SMALLEST_PLANE


def weight_gradients(x, g, size, strides, pairs, lowering):
  """Weight gradient (*size, c_in, c_out) in float32 whose `vmap` costs no more.

  `vmap` asks for one gradient per patient. XLA's own convolution would become a
  grouped one, and the planes of all patients at once would leave the cache: instead
  there are batched products, and planes patient by patient.
  """

  @custom_vmap
  def gradient(x, g):
    return batch_weight_gradient(x, g, size, strides, pairs, lowering)

  @gradient.def_vmap
  def _(axis_size, in_batched, x, g):
    x, g = (
      a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
      for a, batched in zip((x, g), in_batched, strict=True)
    )
    of_one = (x.shape[-1], g.shape[1:], size, strides)
    by_library = lowering == 'onednn' and onednn.suits_weight_gradient(*of_one)
    by_planes = lowering != 'lax' and _has_planes(g.shape[2:-1], size, strides)
    if by_library or by_planes:
      one = lambda a: batch_weight_gradient(*a, size, strides, pairs, lowering)
      return lax.map(one, (x, g)), True
    products = lambda x, g: weight_gradient(pad(x, pairs), g, size, strides)
    return jax.vmap(products)(x, g), True

  return gradient(x, g)


def batch_weight_gradient(x, g, size, strides, pairs, lowering):
  """Weight gradient (*size, c_in, c_out) in float32, summed over the batch."""
  of_batch = (x.shape[-1], g.shape, size, strides)
  if lowering == 'onednn' and onednn.suits_weight_gradient(*of_batch):
    x, g = x.astype(jnp.float32), g.astype(jnp.float32)
    return onednn.weight_gradient(x, g, size, pairs)
  if lowering != 'lax':
    return planes_weight_gradient(pad(x, pairs), g, size, strides)

  def of_kernel(kernel):
    return correlate(x, kernel, strides, 'lax', pairs)

  kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), x.dtype)
  return jax.linear_transpose(of_kernel, kernel)(g)[0].astype(jnp.float32)
