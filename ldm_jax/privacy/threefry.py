"""Normals of the generator threefry2x32: the bits of jax's, in less time and memory.

On a CPU, jax computes the 20 rounds in a loop, each pass of which moves the whole array
through memory. Written out, they are one loop over the array that keeps its words in
registers. A hash makes two words; each is converted to its normal before the two halves
are concatenated, so XLA stores normals and never words. Keys, counters and words are
those of `jax.random` with jax_threefry_partitionable off.
[Salmon11] Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA
LOWEST = np.nextafter(np.float32(-1), np.float32(0))  # erf_inv(-1) is not finite


def normals(key: jax.Array, size: int) -> jax.Array:
  """Standard normals (size,) float32, bit for bit those of `jax.random.normal`.

  Args:
    key: a typed threefry2x32 key. Both words of a hash are used; jax's default, the
      partitionable counter, discards one of them.
    size: below 2**32, the number of counters of one key.

  Raises:
    ValueError: size is 2**32 or more.
  """
  halves = _words(jax.random.key_data(key), size)
  return jnp.concatenate([_normals(words) for words in halves])[:size]


def _normals(words):
  """Words (n,) -> normals (n,): 23 bits of each, uniform on [-1, 1), by erf_inv."""
  one = np.float32(1)
  mantissa = words >> np.uint32(9) | one.view(np.uint32)
  even = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - one
  even = jnp.maximum(LOWEST, even * (one - LOWEST) + LOWEST)
  return np.sqrt(np.float32(2)) * jax.lax.erf_inv(even)


def _words(key, size):
  """(2,) uint32 -> both halves of the words; for an odd size there is one extra."""
  if size >= 2**32:
    raise ValueError(
      f'expected fewer than 2**32 normals per noise key, got {size}; train fewer '
      'parameters (adapt.method).'
    )
  half = -(-size // 2)
  low = jnp.arange(half, dtype=jnp.uint32)
  high = low + np.uint32(half)
  if size % 2:  # the last pair is filled with counter 0
    high = high.at[-1].set(0)
  return _hash(*key, low, high)


def _hash(key_0, key_1, x_0, x_1):
  """Two words of counters -> two words of bits. [Salmon11, threefry2x32, 20 rounds]"""
  keys = key_0, key_1, key_0 ^ key_1 ^ np.uint32(PARITY)
  x_0, x_1 = x_0 + keys[0], x_1 + keys[1]
  for group, rotations in enumerate(itertools.islice(itertools.cycle(ROTATIONS), 5), 1):
    for bits in rotations:
      x_0 = x_0 + x_1
      x_1 = x_0 ^ ((x_1 << np.uint32(bits)) | (x_1 >> np.uint32(32 - bits)))
    x_0 = x_0 + keys[group % 3]
    x_1 = x_1 + keys[(group + 1) % 3] + np.uint32(group)
  return x_0, x_1
