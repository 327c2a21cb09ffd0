"""Initial values of kernels: uniform, variance 1 / fan_in, from hashed counters.

jax.random compiles one Threefry cipher per parameter, which takes longer than the first
training steps of a small network. Each parameter still has its own folded key; the
values are a 32-bit hash of (key, position), the same on every platform. [Wellons18]
"Prospecting for hash functions", lowbias32.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ldm_jax.types import Shape


def fan_in(key: jax.Array, shape: Shape, dtype: jnp.dtype = jnp.float32) -> jax.Array:
  """Kernel (*k,c_in,c_out), uniform within sqrt(3 / (prod(k) c_in)) of zero."""
  return uniform(key, shape, math.sqrt(3 / math.prod(shape[:-1])), dtype)


def uniform(
  key: jax.Array, shape: Shape, bound: float, dtype: jnp.dtype = jnp.float32
) -> jax.Array:
  """At most 2**32 values between -bound and bound."""
  words = jax.random.key_data(key) if _is_typed(key) else key
  bits = lax.iota(jnp.uint32, math.prod(shape))
  for word in words.ravel():
    bits = _hash(bits ^ word)
  # 23 random bits as the mantissa of a number in [1, 2).
  unit = lax.bitcast_convert_type(bits >> 9 | jnp.uint32(0x3F800000), jnp.float32)
  return ((2 * unit - 3) * bound).reshape(shape).astype(dtype)


def _is_typed(key):
  return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _hash(x):
  x = (x ^ x >> 16) * jnp.uint32(0x7FEB352D)
  x = (x ^ x >> 15) * jnp.uint32(0x846CA68B)
  return x ^ x >> 16
