"""One convolution for all: (b,*space,c_in), (*k,c_in,c_out) -> (b,*space,c_out).

It is a cross-correlation in one to three dimensions, as many as the kernel has. Four
lowerings compute the same function, and `choose_lowering` picks one per platform:

`onednn`: a library's convolution (`models/onednn.py`); on a CPU the fastest by far,
  where jaxlib carries it.
`shifted`: a sum over the kernel's taps of a shifted slice times a matrix, in a loop
  that keeps one slice and one product alive. XLA's own 3D convolution on CPU is several
  times slower than this.
`planar`: XLA's 2D convolution, the fastest on other CPUs; a 3D kernel is one for each
  of its planes.
`lax`: XLA's convolution for everything; right on GPU and TPU.

The weight gradient decides the cost of private training: `vmap` turns the gradient of
an XLA convolution into a grouped convolution, several times slower than the batch's,
and inside `scan` it is slower still on CPU. Here it is one matrix product per tap,
which `vmap` turns into batched products. No rule mixes examples.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import adapters, onednn
from ldm_jax.models.initial import fan_in
from ldm_jax.models.lowering import (
  batch_weight_gradient,
  correlate,
  input_gradient,
  subsample,
  weight_gradients,
)

LOWERINGS = ('auto', 'onednn', 'shifted', 'planar', 'lax')


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
    return subsample(x, strides) @ kernel.reshape(kernel.shape[-2:])
  folded = _num_untouched_axes(size, strides, pairs)
  leading = x.shape[: 1 + folded]
  x = x.reshape(-1, *x.shape[1 + folded :])
  kernel = kernel.reshape(kernel.shape[folded:])
  lowering = _chosen(lowering, x, size[folded:])
  y = _convolve(x, kernel, strides[folded:], pairs[folded:], lowering)
  return y.reshape(*leading, *y.shape[1:])


def weight_gradient(x, g, size, strides, pairs):
  """Gradient (*size, c_in, c_out) in float32 of a kernel, summed over the batch.

  Args:
    x: (b, *space, c_in), the input. g: (b, *space_out, c_out), the output's gradient.
    size, strides, pairs: of the kernel, one entry per axis.
  """
  folded = _num_untouched_axes(size, strides, pairs)
  x, g = (a.reshape(-1, *a.shape[1 + folded :]) for a in (x, g))
  rest = size[folded:]
  lowering = _chosen('auto', x, rest)
  total = batch_weight_gradient(x, g, rest, strides[folded:], pairs[folded:], lowering)
  return total.reshape(*size, *total.shape[-2:])


def choose_lowering(platform, space, size):
  """The fastest lowering, measured: see the module's docstring.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
    space, size: spatial sizes of the input and of the kernel, axes that the kernel
      leaves alone removed.
  """
  if platform != 'cpu':
    return 'lax'
  if onednn.is_available():
    return 'onednn'
  # XLA's planar convolution collapses on grids narrower than the kernel.
  wide = all(n >= k for n, k in zip(space[-2:], size[-2:], strict=True))
  return 'planar' if len(size) >= 2 and wide else 'shifted'


def _chosen(lowering, x, size):
  if lowering != 'auto':
    return lowering
  return choose_lowering(jax.default_backend(), x.shape[1:-1], size)


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
  if lowering == 'onednn' and not onednn.is_available():
    raise ValueError(
      "lowering is 'onednn', which needs a CPU of x86-64 under Linux and jaxlib "
      f"{' or '.join(v + 'x' for v in onednn.VERIFIED)}; use 'auto'"
    )
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, pairs, lowering):
  return correlate(x, kernel, strides, lowering, pairs)


def _forward(x, kernel, strides, pairs, lowering):
  return _convolve(x, kernel, strides, pairs, lowering), (x, kernel)


def _backward(strides, pairs, lowering, residuals, g):
  x, kernel = residuals
  if lowering == 'lax':

    def of_input(x):
      return correlate(x, kernel, strides, 'lax', pairs)

    (grad_x,) = jax.linear_transpose(of_input, x)(g)
  else:
    grad_x = input_gradient(g, kernel, strides, pairs, x.shape, lowering)
  size = kernel.shape[:-2]
  grad_kernel = weight_gradients(x, g, size, strides, pairs, lowering)
  return grad_x, grad_kernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


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
  kernel_init: nn.initializers.Initializer = fan_in
  dtype: jnp.dtype | None = None
  lowering: str = 'auto'

  @nn.compact
  def __call__(self, x):
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    dtype = self.dtype or x.dtype
    x = x.astype(dtype)
    y = self.convolve(x, kernel.astype(dtype))
    y = adapters.beside(self, y, lambda kernel: self.convolve(x, kernel))
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
      y = y + bias.astype(dtype)
    return y

  def convolve(self, x, kernel):
    return convolve(x, kernel, self.strides, self.padding, self.lowering)
