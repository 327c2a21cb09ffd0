"""oneDNN's direct convolution on a CPU: (b,*space,c_in) -> (b,*out,c_out) float32.

It keeps a convolution's window in registers, where XLA's own ways copy it before each
product. The wheels of jaxlib for Linux on x86-64 carry oneDNN and execute the custom
call `__onednn$convolution`; XLA's rewrite of its convolutions to that call is switched
off when these wheels are built, so it is written here. [XLA] openxla/xla, pull request
31511; the fields of the call are those of xla/service/cpu/onednn_config.proto.

Its factors are float32 or bfloat16, its sums float32. Processors with instructions for
bfloat16 (`multiplies_bfloat16`) take a half to a quarter of the time for these.
"""

import functools
import json
import math
import os
import platform
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jaxlib
from jax import lax
from jax.custom_batching import custom_vmap

from ldm_jax.models.conv import cache_guard
from ldm_jax.types import Shape

TARGET = '__onednn$convolution'
# Versions whose call was compared with XLA's convolution. A call that is not understood
# ends the process instead of raising, so others are not tried.
VERIFIED = ('0.10.', '0.11.', '0.12.')
# Type of the factors, by the name of the lowering.
PRODUCTS = {'onednn': jnp.float32, 'onednn_bfloat16': jnp.bfloat16}
# Flags in /proc/cpuinfo of processors that multiply bfloat16 faster than float32.
BFLOAT16_FLAGS = {'amx_bf16', 'avx512_bf16'}
# Of a weight gradient, measured: channels and contracted planes that repay its copies,
# and numbers of g that stay in a core's cache.
CHANNELS = 32
PLANES = 8
CACHED = 2**18


@functools.cache
def is_available() -> bool:
  """Whether this jaxlib executes the call and this jax keeps it out of its cache.

  From then on the cache stores no program with the call, whoever compiles it.
  """
  machine = sys.platform == 'linux' and platform.machine() in ('x86_64', 'AMD64')
  known = machine and jaxlib.__version__.startswith(VERIFIED)
  return known and cache_guard.install()


def is_preferred() -> bool:
  """Whether it is available and the environment does not say LDM_JAX_ONEDNN=0.

  A program with this call is never stored (`cache_guard`), so every process compiles
  it: who compiles much and computes little, as tests do, is better off without.
  """
  return is_available() and os.environ.get('LDM_JAX_ONEDNN', '1') != '0'


@functools.cache
def multiplies_bfloat16() -> bool:
  """Whether this processor has instructions for products of bfloat16."""
  try:
    with open('/proc/cpuinfo') as file:
      flags = next((line for line in file if line.startswith('flags')), '')
  except OSError:
    return False
  return not BFLOAT16_FLAGS.isdisjoint(flags.split())


def correlate(
  x: jax.Array, kernel: jax.Array, strides: Shape, pairs: Sequence[tuple[int, int]]
) -> jax.Array:
  """Cross-correlation with pairs of zeros, none negative, around the spatial axes.

  `vmap` over examples joins them to the batch; over kernels it is a loop.
  """

  @custom_vmap
  def call(x, kernel):
    return _call(x, kernel, strides, pairs, kernel.ndim - 2)

  @call.def_vmap
  def _(axis_size, in_batched, x, kernel):
    x_batched, kernel_batched = in_batched
    one = functools.partial(correlate, strides=strides, pairs=pairs)
    if not kernel_batched:
      y = one(x.reshape(-1, *x.shape[2:]), kernel)
      return y.reshape(axis_size, -1, *y.shape[1:]), True
    if not x_batched:
      return lax.map(lambda kernel: one(x, kernel), kernel), True
    return lax.map(lambda pair: one(*pair), (x, kernel)), True

  return call(x, kernel)


def suits_weight_gradient(
  num_inputs: int, shape: Shape, size: Shape, strides: Shape
) -> bool:
  """Whether `weight_gradient` is the fastest way for g of this shape, measured."""
  if len(size) < 2 or set(strides) != {1} or min(num_inputs, shape[-1]) < CHANNELS:
    return False
  num = _examples_at_once(shape)
  return num * (shape[1] if len(size) == 3 else 1) >= PLANES


def weight_gradient(
  x: jax.Array, g: jax.Array, size: Shape, pairs: Sequence[tuple[int, int]]
) -> jax.Array:
  """Gradient (*size, c_in, c_out) of a convolution of stride 1.

  It is a convolution itself: of x, its input channels for a batch, with g for a kernel.
  Examples and the first of three axes are contracted; taps along that axis are further
  rows of the batch.
  """
  if len(size) == 2:
    x, g, size, pairs = x[:, None], g[:, None], (1, *size), ((0, 0), *pairs)
    return weight_gradient(x, g, size, pairs)[0]
  num = _examples_at_once(g.shape)
  x, g = (a.reshape(-1, num, *a.shape[1:]) for a in (x, g))
  part = functools.partial(_weight_gradient, size=size, pairs=pairs)
  # The first term starts the sum, so that it carries the right varying axes.
  return lax.fori_loop(1, len(x), lambda i, y: y + part(x[i], g[i]), part(x[0], g[0]))


def _examples_at_once(shape):
  """The largest part of the batch that stays in a core's cache; 0 if none does."""
  num, example = shape[0], math.prod(shape[1:])
  fits = (n for n in range(1, num + 1) if num % n == 0 and n * example <= CACHED)
  return max(fits, default=0)


def _weight_gradient(x, g, size, pairs):
  taps, rows, columns = size
  depth, c_out = g.shape[1], g.shape[-1]
  x = jnp.pad(x, ((0, 0), pairs[0], *((0, 0),) * 3))
  # Each tap's planes as (c_in, rows, columns, examples and planes).
  met = [x[:, tap : tap + depth] for tap in range(taps)]
  met = [a.reshape(-1, *a.shape[2:]).transpose(3, 1, 2, 0) for a in met]
  kernel = g.reshape(-1, *g.shape[2:])
  y = _call(jnp.concatenate(met), kernel, (1, 1), pairs[1:], kernel_inputs=0)
  return jnp.moveaxis(y.reshape(taps, -1, rows, columns, c_out), 1, 3)


def _call(x, kernel, strides, pairs, kernel_inputs):
  """The custom call; kernel_inputs is the kernel's axis of input channels, the last
  one is of output channels, the others are spatial."""
  if not is_available():
    raise ValueError(f'expected jaxlib {VERIFIED} on x86-64; use another lowering')
  rank = kernel.ndim
  space = [axis for axis in range(rank - 1) if axis != kernel_inputs]
  size = [kernel.shape[axis] for axis in space]
  data = {
    'batch_dim': 0,
    'feature_dim': rank - 1,
    'spatial_dims': list(range(1, rank - 1)),
  }
  taps = {
    'input_feature_dim': kernel_inputs,
    'output_feature_dim': rank - 1,
    'spatial_dims': space,
  }
  config = {
    'dims': rank,
    'feature_groups': 1,
    'input': {'dims': rank, 'data': data},
    'kernel': {'dims': rank, 'filter': taps},
    'output': {'dims': rank, 'data': data},
    'window': {
      'size': size,
      'strides': list(strides),
      'pad_left': [low for low, _ in pairs],
      'pad_right': [high for _, high in pairs],
      'window_dilations': [1] * len(size),
    },
  }
  windows = zip(x.shape[1:-1], size, strides, pairs, strict=True)
  out = [(n + low + high - k) // s + 1 for n, k, s, (low, high) in windows]
  call = jax.ffi.ffi_call(
    TARGET,
    jax.ShapeDtypeStruct((x.shape[0], *out, kernel.shape[-1]), jnp.float32),
    custom_call_api_version=2,
    legacy_backend_config=json.dumps({'onednn_conv_config': config}),
  )
  return call(x, kernel)
