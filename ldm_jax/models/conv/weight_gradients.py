"""The gradient of a convolution's kernel: (b,*space,c_in), (b,*out,c_out) -> kernel.

It dominates the cost of private training: `vmap` computes one gradient per patient, and
turns the gradient of XLA's own convolution into a grouped convolution, which is several
times slower than that of the batch. See `lowering` for the terms.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from ldm_jax.models.conv import onednn
from ldm_jax.models.conv.lowering import FOLDED_WIDTH, correlate, fold, pad, shifted
from ldm_jax.types import Shape

# A weight gradient is one product per tap over all examples, or one product per example
# and tap, which the cores compute in parallel. The second if there are at least this
# many input channels and at most this many entries of c_in x c_out per output voxel
# (measured on two cores).
CHANNELS_FOR_BATCHED_PRODUCTS = 32
MATRIX_PER_VOXEL = 64
# On smaller planes the products are too small for a loop over planes.
SMALLEST_PLANE = 128
# Zeros (before, after) along each axis; negative numbers crop.
Pairs = tuple[tuple[int, int], ...]


def taps_weight_gradient(
  x: jax.Array, g: jax.Array, size: Shape, strides: Shape
) -> jax.Array:
  """Gradient (*size, c_in, c_out) from the padded input: one product per tap."""
  out, c_out = g.shape[1:-1], g.shape[-1]
  placeholder = jnp.zeros((*size, x.shape[-1], c_out), x.dtype)
  c_in = x.shape[-1]
  if math.prod(size) * c_in <= FOLDED_WIDTH:
    x, folded, strides = fold(x, placeholder, out, strides, FOLDED_WIDTH)
    taps = folded.shape[:-2]
  else:
    taps = size
  small = c_in * c_out <= MATRIX_PER_VOXEL * math.prod(out)
  batched = c_in >= CHANNELS_FOR_BATCHED_PRODUCTS and small
  if batched:
    # The barrier keeps XLA from moving the transposition into the loop.
    g = jnp.swapaxes(g.reshape(g.shape[0], -1, c_out), 1, 2)
    g = lax.optimization_barrier(g)
  else:
    g = g.reshape(-1, c_out)

  def product(_, tap):
    window = shifted(x, tap, taps, out, strides)
    if batched:
      window = window.reshape(g.shape[0], -1, c_in)
      y = jnp.matmul(g, window, preferred_element_type=jnp.float32)
      return None, y.sum(0).T
    window = window.reshape(-1, x.shape[-1])
    return None, jnp.matmul(window.T, g, preferred_element_type=jnp.float32)

  _, matrices = lax.scan(product, None, jnp.arange(math.prod(taps)))
  return matrices.reshape(*size, c_in, c_out)


def planes_weight_gradient(
  x: jax.Array, g: jax.Array, size: Shape, strides: Shape
) -> jax.Array:
  """`taps_weight_gradient` with one product per plane, which stays in the cache.

  Each plane of the padded input contributes through k_0 planes of g, one per leading
  tap: a product (k_1 k_2 c_in, voxels) (voxels, k_0 c_out).
  """
  out = g.shape[1:-1]
  if not _has_planes(out, size, strides):
    return taps_weight_gradient(x, g, size, strides)
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


def weight_gradients(
  x: jax.Array, g: jax.Array, size: Shape, strides: Shape, pairs: Pairs, lowering: str
) -> jax.Array:
  """Weight gradient (*size, c_in, c_out) in float32 with its own rule for `vmap`.

  `vmap` computes one gradient per patient. XLA's own convolution would become a grouped
  one, and the planes of all patients together would not fit into the cache. Instead the
  rule uses batched products, or planes one patient after the other.
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
    by_library = lowering in onednn.PRODUCTS and onednn.suits_weight_gradient(*of_one)
    by_planes = lowering != 'lax' and _has_planes(g.shape[2:-1], size, strides)
    if by_library or by_planes:
      one = lambda x, g: batch_weight_gradient(x, g, size, strides, pairs, lowering)
      return _one_after_the_other(one, x, g), True
    products = lambda x, g: taps_weight_gradient(pad(x, pairs), g, size, strides)
    return jax.vmap(products)(x, g), True

  return gradient(x, g)


def _one_after_the_other(one, x, g):
  """`lax.map` of `one` over the rows, in float32.

  XLA makes the zeros from which `lax.map` begins at the start of the program and keeps
  them until the loop: all patients' kernels while activations are largest. Here the
  buffer begins from a number of g, so it does not exist before g.
  """
  shape = jax.eval_shape(one, x[0], g[0]).shape
  any_number = g[(0,) * g.ndim].astype(jnp.float32)
  begin = jnp.broadcast_to(any_number, (len(x), *shape))

  def put(row, results):
    return lax.dynamic_update_index_in_dim(results, one(x[row], g[row]), row, 0)

  return lax.fori_loop(0, len(x), put, begin)


def batch_weight_gradient(
  x: jax.Array, g: jax.Array, size: Shape, strides: Shape, pairs: Pairs, lowering: str
) -> jax.Array:
  """Weight gradient (*size, c_in, c_out) in float32, summed over the batch."""
  of_batch = (x.shape[-1], g.shape, size, strides)
  cropped = any(n < 0 for pair in pairs for n in pair)
  by_library = lowering in onednn.PRODUCTS and onednn.suits_weight_gradient(*of_batch)
  if by_library and not cropped:
    x, g = (a.astype(onednn.PRODUCTS[lowering]) for a in (x, g))
    return onednn.weight_gradient(x, g, size, pairs)
  if lowering != 'lax':
    return planes_weight_gradient(pad(x, pairs), g, size, strides)

  def of_kernel(kernel):
    return correlate(x, kernel, strides, 'lax', pairs)

  kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), x.dtype)
  return jax.linear_transpose(of_kernel, kernel)(g)[0].astype(jnp.float32)
