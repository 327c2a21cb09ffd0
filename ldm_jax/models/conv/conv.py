"""The convolution of every network: (b,*space,c_in), (*k,c_in,c_out) -> (b,*out,c_out).

A cross-correlation in one to three dimensions, as many as the kernel has. This module
alone decides how it is computed; other modules ask it. Five lowerings compute the same
function up to rounding, none mixes examples:

`onednn`: oneDNN's convolution inside jaxlib (module `onednn`), the fastest on a CPU.
`onednn_bfloat16`: the same with both factors of each product rounded to bfloat16 (8
  significant bits); sums are float32. What a TPU does with float32 by default.
`planar`: XLA's 2D convolution, summed over the planes of a 3D kernel.
`shifted`: a sum over the kernel's taps of a shifted slice times a matrix, in a loop
  that keeps one slice and one product in memory. Several times faster than XLA's own
  3D convolution on a CPU.
`lax`: XLA's convolution for everything.

With lowering 'auto' (`choose_lowering`):

  platform, environment           grid and kernel                 lowering
  GPU, TPU                        any                             lax
  CPU, LDM_JAX_FAST_CONV=0        any                             lax
  CPU, `onednn.is_preferred()`,
    bfloat16 is fast and allowed  any                             onednn_bfloat16
  CPU, `onednn.is_preferred()`    any                             onednn
  CPU otherwise                   2D, 3D; grid >= kernel in       planar
                                  the last two axes
                                  all others                      shifted

The switch is the environment variable LDM_JAX_FAST_CONV, on unless it is 0. Off means
plain XLA everywhere: `lax` on a CPU, repeated voxels written out before their
convolution (module `repeated`), and per-patient gradients by `vmap` instead of ghost
norms where adapt.privacy.gradients is 'auto'. It is the way to find out whether a fast
path is to blame for a result. LDM_JAX_ONEDNN=0 turns off oneDNN alone. Both are read
when a function is traced: set them before the process starts.

Products in bfloat16 are fast on processors with AMX or AVX512-BF16
(`onednn.multiplies_bfloat16`). jax's own switch allows or forbids them, as on other
platforms: jax.default_matmul_precision('float32'), or the environment variable
JAX_DEFAULT_MATMUL_PRECISION=float32, gives `onednn`.

A jaxlib that nobody has compared with XLA's convolution (its version is not in
`onednn.VERIFIED`) never runs oneDNN's call: 'auto' takes `planar` or `shifted`, and
asking for 'onednn' by name raises ValueError. All other fast paths are ordinary JAX
operations, which give the right result with any jaxlib; only their speed was measured
on particular versions.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import adapters, platform
from ldm_jax.models.conv import onednn
from ldm_jax.models.conv.lowering import (
  correlate,
  input_gradient,
  pad,
  subsample,
  unfold,
)
from ldm_jax.models.conv.weight_gradients import (
  Pairs,
  batch_weight_gradient,
  weight_gradients,
)
from ldm_jax.models.init import fan_in
from ldm_jax.types import Array, Shape

LOWERINGS = ('auto', 'onednn', 'onednn_bfloat16', 'shifted', 'planar', 'lax')
# Values of jax_default_matmul_precision that leave products in bfloat16 allowed.
PRECISIONS_OF_BFLOAT16 = (None, 'default', 'fastest', 'bfloat16', 'BF16_BF16_F32')
# 0 turns off all fast paths.
SWITCH = 'LDM_JAX_FAST_CONV'


def fast_paths_are_on() -> bool:
  """Whether the environment allows fast paths; see the module."""
  return os.environ.get(SWITCH, '1') != '0'


def convolve(
  x: Array,
  kernel: Array,
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'same',
  lowering: str = 'auto',
) -> jax.Array:
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

  Raises: ValueError if the ranks, channels, padding or lowering do not fit.
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


def choose_lowering(kind: str, space: Shape, size: Shape) -> str:
  """The lowering for 'auto', by the table in the module's docstring.

  Args:
    kind: the platform, 'cpu', 'gpu' or 'tpu'.
    space, size: spatial sizes of the input and of the kernel, without the leading axes
      along which the kernel has size 1, stride 1 and no padding.
  """
  if kind != 'cpu' or not fast_paths_are_on():
    return 'lax'
  if onednn.is_preferred():
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    is_allowed = precision in PRECISIONS_OF_BFLOAT16
    rounds = is_allowed and onednn.multiplies_bfloat16()
    return 'onednn_bfloat16' if rounds else 'onednn'
  # XLA's 2D convolution is very slow on grids narrower than the kernel.
  wide = all(n >= k for n, k in zip(space[-2:], size[-2:], strict=True))
  return 'planar' if len(size) >= 2 and wide else 'shifted'


def _chosen(lowering, x, size):
  if lowering != 'auto':
    return lowering
  return choose_lowering(platform.name(), x.shape[1:-1], size)


def padding_pairs(padding: str | Sequence[tuple[int, int]], size: Shape) -> Pairs:
  """(before, after) per axis from 'same', 'valid' or explicit pairs.

  Raises: ValueError for any other string.
  """
  if padding == 'same':
    return tuple(((k - 1) // 2, k // 2) for k in size)
  if padding == 'valid':
    return ((0, 0),) * len(size)
  if isinstance(padding, str):
    raise ValueError(
      f"padding is {padding!r}, expected 'same', 'valid' or one (before, after) pair "
      'per axis'
    )
  return tuple((int(low), int(high)) for low, high in padding)


def _check(x, kernel, strides, pairs, lowering):
  dims = kernel.ndim - 2
  if dims not in (1, 2, 3) or x.ndim != dims + 2:
    raise ValueError(
      f'input {x.shape} and kernel {kernel.shape} do not fit: expected '
      '(b,*space,c_in) and (*k,c_in,c_out) with the same one to three spatial axes; '
      'give the kernel as many axes as the volume has'
    )
  if x.shape[-1] != kernel.shape[-2]:
    raise ValueError(
      f'input has {x.shape[-1]} channels, kernel {kernel.shape} expects '
      f'{kernel.shape[-2]}; change the number of channels of one of them'
    )
  if len(strides) != dims or len(pairs) != dims:
    raise ValueError(
      f'strides {strides} and padding {pairs}: expected one entry per axis of the '
      f'kernel {kernel.shape[:-2]}'
    )
  if lowering not in LOWERINGS:
    raise ValueError(f'lowering is {lowering!r}, expected one of {LOWERINGS}')
  if lowering in onednn.PRODUCTS and not onednn.is_available():
    raise ValueError(
      f'lowering is {lowering!r}, which needs a CPU of x86-64 under Linux and jaxlib '
      f"{' or '.join(v + 'x' for v in onednn.VERIFIED)}; use 'auto'"
    )
  for n, k, (low, high) in zip(x.shape[1:-1], kernel.shape, pairs, strict=False):
    if n + low + high < k:
      raise ValueError(
        f'kernel {kernel.shape[:-2]} is larger than the padded grid of {x.shape}; '
        'use a smaller kernel, more padding, or fewer levels'
      )


def _num_untouched_axes(size, strides, pairs):
  """Number of leading axes with size 1, stride 1 and no padding, but one axis stays.

  They can join the batch at no cost.
  """
  plain = [
    k == 1 and s == 1 and p == (0, 0)
    for k, s, p in zip(size, strides, pairs, strict=True)
  ]
  return plain.index(False) if False in plain else len(plain) - 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, pairs, lowering):
  return correlate(x, kernel, strides, lowering, pairs)


def _forward(x, kernel, strides, pairs, lowering):
  y = _convolve(x, kernel, strides, pairs, lowering)
  # Kept as the products of the gradients use it.
  return y, (x.astype(onednn.PRODUCTS.get(lowering, x.dtype)), kernel)


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


@dataclasses.dataclass(frozen=True)
class LinearMap:
  """How a linear layer's output follows from its input and kernel: windows(x) kernel.

  Layers return it from `linear_map`, for those who need a gradient in factors
  (`privacy.ghost`).

  Attributes:
    size, strides, pairs: of the kernel, one entry per axis; all () for a dense layer.
  """

  size: tuple = ()
  strides: tuple = ()
  pairs: tuple = ()

  def windows(self, x: jax.Array) -> jax.Array:
    """Inputs (b,*out,k) that each output is computed from, of x (b,*space,c_in)."""
    return unfold(pad(x, self.pairs), self.size, self.strides) if self.size else x

  def weight_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
    """Gradient of the kernel, in its shape and summed over the batch, float32.

    Its products are never rounded to bfloat16: a norm that was computed from x and g
    must bound it (`privacy.ghost`).

    Args:
      x: (b,*space,c_in), the input. g: (b,*out,c_out), the output's gradient.
    """
    if not self.size:
      return x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
    folded = _num_untouched_axes(self.size, self.strides, self.pairs)
    x, g = (a.reshape(-1, *a.shape[1 + folded :]) for a in (x, g))
    size, strides, pairs = (
      values[folded:] for values in (self.size, self.strides, self.pairs)
    )
    lowering = _chosen('auto', x, size)
    lowering = 'onednn' if lowering in onednn.PRODUCTS else lowering
    total = batch_weight_gradient(x, g, size, strides, pairs, lowering)
    return total.reshape(*self.size, *total.shape[-2:])


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
  def __call__(self, x: jax.Array) -> jax.Array:
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

  def convolve(self, x: Array, kernel: Array) -> jax.Array:
    """The layer's convolution with any kernel (*kernel_size, c, features)."""
    return convolve(x, kernel, self.strides, self.padding, self.lowering)

  def linear_map(self) -> LinearMap:
    """Says that the layer is linear in its kernel; not inherited, see `LinearMap`."""
    size, strides = tuple(self.kernel_size), self.strides
    strides = (strides,) * len(size) if isinstance(strides, int) else tuple(strides)
    return LinearMap(size, strides, padding_pairs(self.padding, size))
