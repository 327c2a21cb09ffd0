"""Random keys whose generator no setting of jax changes.

`jax.random.key` without `impl` makes a key of the generator that JAX_DEFAULT_PRNG_IMPL
names. Under `vmap`, the draws of rbg keys depend on the whole batch: a patient's noise
would depend on who else is in it, and removing one patient would change the gradients
of all others. A threefry draw depends on its own key alone.

Two rules keep it so whatever JAX_THREEFRY_PARTITIONABLE says:
- no draw and no split of one patient's key has a shape that depends on other patients;
- the key of item i is `fold_in(key, i)`, not `split(key, n)[i]`, which may depend on n.
"""

import jax
import jax.numpy as jnp

GENERATOR = 'threefry2x32'


def key(seed: int) -> jax.Array:
  """A key of `GENERATOR` from a seed."""
  return jax.random.key(seed, impl=GENERATOR)


def wrap(words: jax.Array) -> jax.Array:
  """A typed key of `GENERATOR` from its two words (...,2) uint32."""
  return jax.random.wrap_key_data(words, impl=GENERATOR)


def threefry(keys: jax.Array) -> jax.Array:
  """Keys of any generator, typed or raw -> typed keys of `GENERATOR`, same shape.

  Each result follows from all words of its own key; threefry keys stay as they are.
  """
  words = keys
  if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
    if jax.random.key_impl(keys) == GENERATOR:
      return keys
    words = jax.random.key_data(keys)
  result = wrap(words[..., :2])
  for number in range(2, words.shape[-1]):
    result = fold(result, words[..., number])
  return result


def fold(keys: jax.Array, numbers: jax.Array) -> jax.Array:
  """`jax.random.fold_in` of keys (...) and numbers (...), one by one."""
  folded = jax.vmap(jax.random.fold_in)(keys.ravel(), jnp.ravel(numbers))
  return folded.reshape(keys.shape)


def numbered(key: jax.Array, count: int) -> jax.Array:
  """Keys (count,) of one key; the key of an item does not depend on the count."""
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
