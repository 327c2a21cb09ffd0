"""One convolution for all: (b,*space,c_in), (*k,c_in,c_out) -> (b,*space,c_out).

It is a cross-correlation in one to three dimensions, as many as the kernel has. Three
lowerings compute the same function, and `choose_lowering` picks one per platform:

`shifted`: a sum over the kernel's taps of a shifted slice times a matrix, in a loop
  that keeps one slice and one product alive. XLA's own 3D convolution on CPU is several
  times slower than this.
`planar`: XLA's 2D convolution, fast on CPU, for kernels that act in planes only.
`lax`: XLA's convolution for everything; right on GPU and TPU.

The weight gradient decides the cost of private training: `vmap` turns the gradient of
an XLA convolution into a grouped convolution, several times slower than the batch's,
and inside `scan` it is slower still on CPU. Here it is one matrix product per tap,
which `vmap` turns into batched products. No rule mixes examples.
"""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

LOWERINGS = ('auto', 'shifted', 'planar', 'lax')

# Taps are folded into the contraction while it stays this narrow: products of fewer
# columns leave the CPU's matrix units idle, wider ones only add copies.
FOLDED_WIDTH = 96
# Below this many input channels the weight gradient is one tall product per tap, from
# here on one product per example, which the cores share (measured on two cores).
CHANNELS_FOR_BATCHED_PRODUCTS = 32


def convolve(x, kernel, strides=1, padding='same', lowering='auto'):
  """Cross-correlates x with kernel, zero outside the borders.

  Args:
    x: (b, *space, c_in).
    kernel: (*k, c_in, c_out) with as many k as spatial axes, one to three.
    strides: int or one per axis.
    padding: 'same' ((k - 1) // 2 zeros before and k // 2 after each axis, whatever the
      stride), 'valid', or one (before, after) pair per axis.
    lowering: one of LOWERINGS; the result is the same function.

  Returns: (b, *space_out, c_out) in the promoted type of x and kernel; sums over taps
    are accumulated in float32.

  Raises: ValueError when the ranks, channels, padding or lowering do not fit.
  """
  size, dims = kernel.shape[:-2], kernel.ndim - 2
  strides = (strides,) * dims if isinstance(strides, int) else tuple(strides)
  pairs = padding_pairs(padding, size)
  _check(x, kernel, strides, pairs, lowering)
  dtype = jnp.promote_types(x.dtype, kernel.dtype)
  x, kernel = x.astype(dtype), kernel.astype(dtype)
  if size == (1,) * dims and not any(map(any, pairs)):
    return _subsample(x, strides) @ kernel.reshape(kernel.shape[-2:])
  folded = _num_untouched_axes(size, strides, pairs)
  leading = x.shape[: 1 + folded]
  x = x.reshape(-1, *x.shape[1 + folded :])
  kernel = kernel.reshape(kernel.shape[folded:])
  strides, pairs = strides[folded:], pairs[folded:]
  if lowering == 'auto':
    lowering = choose_lowering(jax.default_backend(), x.shape[1:-1], kernel.shape[:-2])
  y = _convolve(x, kernel, strides, pairs, lowering)
  return y.reshape(*leading, *y.shape[1:])


def choose_lowering(platform, space, size):
  """The fastest lowering, measured: see the module's docstring.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
    space, size: spatial sizes of the input and of the kernel, axes that the kernel
      leaves alone removed.
  """
  if platform != 'cpu':
    return 'lax'
  # XLA's planar convolution collapses on grids narrower than the kernel.
  wide = all(n >= k for n, k in zip(space, size, strict=True))
  return 'planar' if len(size) == 2 and wide else 'shifted'


def padding_pairs(padding, size):
  """(before, after) per axis from 'same', 'valid' or explicit pairs."""
  if padding == 'same':
    return tuple(((k - 1) // 2, k // 2) for k in size)
  if padding == 'valid':
    return ((0, 0),) * len(size)
  if isinstance(padding, str):
    raise ValueError(f"padding is {padding!r}; give 'same', 'valid' or pairs")
  return tuple((int(low), int(high)) for low, high in padding)


def _check(x, kernel, strides, pairs, lowering):
  dims = kernel.ndim - 2
  if dims not in (1, 2, 3) or x.ndim != dims + 2:
    raise ValueError(
      f'input {x.shape} and kernel {kernel.shape} do not fit: (b,*space,c_in) and '
      '(*k,c_in,c_out) with one to three spatial axes are required; give the kernel as '
      'many axes as the volume has'
    )
  if x.shape[-1] != kernel.shape[-2]:
    raise ValueError(
      f'input has {x.shape[-1]} channels, kernel {kernel.shape} takes '
      f'{kernel.shape[-2]}; change the number of channels of one of them'
    )
  if len(strides) != dims or len(pairs) != dims:
    raise ValueError(
      f'strides {strides} and padding {pairs} need one entry per axis of the kernel '
      f'{kernel.shape[:-2]}'
    )
  if lowering not in LOWERINGS:
    raise ValueError(f'lowering is {lowering!r}; choose one of {LOWERINGS}')
  for n, k, (low, high) in zip(x.shape[1:-1], kernel.shape, pairs, strict=False):
    if n + low + high < k:
      raise ValueError(
        f'kernel {kernel.shape[:-2]} is larger than the padded grid of {x.shape}; '
        'use a smaller kernel, more padding, or fewer levels'
      )


def _num_untouched_axes(size, strides, pairs):
  """Leading axes that the kernel leaves alone: they join the batch at no cost."""
  plain = [
    k == 1 and s == 1 and p == (0, 0)
    for k, s, p in zip(size, strides, pairs, strict=True)
  ]
  return plain.index(False) if False in plain else len(plain) - 1


def _subsample(x, strides):
  return x[(slice(None), *(slice(None, None, s) for s in strides))]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, pairs, lowering):
  return _correlate(_pad(x, pairs), kernel, strides, lowering)


def _forward(x, kernel, strides, pairs, lowering):
  return _convolve(x, kernel, strides, pairs, lowering), (x, kernel)


def _backward(strides, pairs, lowering, residuals, g):
  x, kernel = residuals
  if lowering == 'lax':

    def of_input(x):
      return _correlate(_pad(x, pairs), kernel, strides, 'lax')

    (grad_x,) = jax.linear_transpose(of_input, x)(g)
  else:
    grad_x = _input_gradient(g, kernel, strides, pairs, x.shape, lowering)
  weight_gradient = _xla_weight_gradient if lowering == 'lax' else _weight_gradient
  grad_kernel = weight_gradient(_pad(x, pairs), g, kernel.shape[:-2], strides)
  return grad_x, grad_kernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _pad(x, pairs):
  """Zeros around the spatial axes; negative numbers crop."""
  config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
  return lax.pad(x, jnp.zeros((), x.dtype), config)


def _output_size(space, size, strides):
  return tuple((n - k) // s + 1 for n, k, s in zip(space, size, strides, strict=True))


def _correlate(x, kernel, strides, lowering):
  """Convolution of the already padded x."""
  size, dims = kernel.shape[:-2], kernel.ndim - 2
  if size == (1,) * dims:
    return _subsample(x, strides) @ kernel.reshape(kernel.shape[-2:])
  if lowering != 'shifted':
    axes = 'DHW'[-dims:]
    numbers = (f'N{axes}C', f'{axes}IO', f'N{axes}C')
    return lax.conv_general_dilated(
      x, kernel, strides, 'VALID', dimension_numbers=numbers
    )
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


def _shifted(x, tap, size, out, strides):
  """The inputs (b, *out, c) that one tap, counted in row-major order, meets."""
  start = [jnp.zeros((), tap.dtype)]
  for k in reversed(size):
    start.insert(0, tap % k)
    tap = tap // k
  spans = [1 + (n - 1) * s for n, s in zip(out, strides, strict=True)]
  start.insert(0, jnp.zeros((), tap.dtype))
  window = lax.dynamic_slice(x, start, (x.shape[0], *spans, x.shape[-1]))
  return _subsample(window, strides)


def _input_gradient(g, kernel, strides, pairs, shape, lowering):
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
    phases.append(_correlate(_pad(g, margins), part, (1,) * len(strides), lowering))
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


def _weight_gradient(x, g, size, strides):
  """Gradient (*size, c_in, c_out) from the padded input: one product per tap."""
  out, c_out = g.shape[1:-1], g.shape[-1]
  placeholder = jnp.zeros((*size, x.shape[-1], c_out), x.dtype)
  c_in = x.shape[-1]
  if math.prod(size) * c_in <= FOLDED_WIDTH:
    x, folded, strides = _fold(x, placeholder, out, strides, FOLDED_WIDTH)
    taps = folded.shape[:-2]
  else:
    taps = size
  batched = x.shape[-1] >= CHANNELS_FOR_BATCHED_PRODUCTS
  groups = x.shape[0] if batched else 1
  g = g.reshape(groups, -1, c_out)

  def product(_, tap):
    window = _shifted(x, tap, taps, out, strides).reshape(groups, -1, x.shape[-1])
    y = jnp.einsum('bsi,bso->bio', window, g, preferred_element_type=jnp.float32)
    return None, y.sum(0)

  _, matrices = lax.scan(product, None, jnp.arange(math.prod(taps)))
  return matrices.reshape(*size, c_in, c_out)


def _xla_weight_gradient(x, g, size, strides):
  """XLA's weight gradient; under vmap, products instead of a grouped convolution."""

  @custom_vmap
  def gradient(x, g):
    def of_kernel(kernel):
      return _correlate(x, kernel, strides, 'lax')

    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(of_kernel, kernel)(g)[0].astype(jnp.float32)

  @gradient.def_vmap
  def _(axis_size, in_batched, x, g):
    del axis_size
    axes = [0 if batched else None for batched in in_batched]
    products = functools.partial(_weight_gradient, size=size, strides=strides)
    return jax.vmap(products, in_axes=axes)(x, g), True

  return gradient(x, g)


class Conv(nn.Module):
  """Convolution layer: (b,*space,c) -> (b,*space_out,features).

  As many spatial axes as kernel_size has entries. Parameters `kernel`
  (*kernel_size, c, features) and `bias` (features,), stored in float32 and used in
  `dtype` (default: the input's).
  """

  features: int
  kernel_size: tuple
  strides: tuple | int = 1
  padding: str | tuple = 'same'
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: jnp.dtype | None = None
  lowering: str = 'auto'

  @nn.compact
  def __call__(self, x):
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    dtype = self.dtype or x.dtype
    y = convolve(
      x.astype(dtype), kernel.astype(dtype), self.strides, self.padding, self.lowering
    )
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
      y = y + bias.astype(dtype)
    return y
