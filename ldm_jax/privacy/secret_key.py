"""The secret that a private run's noise and draws come from: made, kept, destroyed.

By default it is one jax key of the generator threefry2x32: 64 bits from the operating
system. The step is folded into it (`privacy/noise.py`), so a run that resumes repeats
the noise of a step instead of releasing that step twice. The draws of the Poisson
sampler come from the same secret, by SHA-256, and so do those of `discrete_gaussian`,
by SHAKE-256. Every privacy statement says that threefry2x32 is not certified as a
cryptographic generator.

With `adapt.privacy.generator='chacha20'` the secret has 256 bits, as four such keys,
and what the host draws (the sampler, `discrete_gaussian`) comes from ChaCha20
(`privacy/chacha20.py`). Training noise is drawn on the device: its key of 64 bits is a
hash of the secret (`device_key`), and its generator stays threefry2x32."""

import hashlib
import math
import os
import pathlib
import secrets

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import atomic, prng
from ldm_jax.privacy import chacha20, key_origin

GENERATOR = prng.GENERATOR
THREEFRY, CHACHA20 = 'threefry', chacha20.NAME
# Values of adapt.privacy.generator -> shape of the secret, an array of jax keys.
SHAPES: dict[str, tuple[int, ...]] = {THREEFRY: (), CHACHA20: (4,)}


def new_noise_key(seed: int | None = None, generator: str = THREEFRY) -> jax.Array:
  """Creates the secret noise key from the operating system's entropy, or a seed.

  Args:
    seed: None for a real run. An int fixes the noise, so anyone who knows it can
      subtract the noise; for tests and tiny runs only, and `describe_randomness` says
      so.
    generator: of what the host draws: 'threefry' (64 bits) or 'chacha20' (256 bits).

  Returns:
    A typed jax key () of `GENERATOR`, or four (4,) for 'chacha20'.

  Raises:
    ValueError: 'chacha20' without the package cryptography.
  """
  if generator == CHACHA20:
    chacha20.cipher()
  num_bytes = 8 * math.prod(SHAPES[generator])
  if seed is None:
    data = np.frombuffer(secrets.token_bytes(num_bytes), np.uint32)
  else:
    digest = hashlib.sha256(f'ldm_jax noise {int(seed)}'.encode()).digest()
    data = np.frombuffer(digest[:num_bytes], '<u4').astype(np.uint32)
  return prng.wrap(jnp.asarray(data.reshape(*SHAPES[generator], 2)))


def generator_of(key: jax.Array) -> str:
  """The generator of what the host draws from this secret."""
  return CHACHA20 if key.shape == SHAPES[CHACHA20] else THREEFRY


def device_key(key: jax.Array) -> jax.Array:
  """The key () of the noise that a device draws; of 'chacha20' a hash of the secret."""
  if generator_of(key) == THREEFRY:
    return key
  digest = hashlib.sha256(b'ldm_jax device ' + _bytes(key)).digest()
  return prng.wrap(jnp.asarray(np.frombuffer(digest[:8], '<u4').astype(np.uint32)))


def recorded(generator: str) -> dict[str, str]:
  """The field of a release that says which generator the host drew with."""
  return {} if generator == THREEFRY else {key_origin.GENERATOR_FIELD: generator}


def describe_randomness(
  seed: int | None = None, generator: str = THREEFRY, destroyed: bool = False
) -> str:
  """One sentence for the privacy statement: the source of noise and draws.

  Args:
    seed: of the noise key; None for a real run.
    generator: of what the host draws.
    destroyed: whether the key has been overwritten and removed.
  """
  made = f'generator {GENERATOR}'
  if generator == CHACHA20:
    made = (
      'ChaCha20 for the draws of patients and the noise of means and histograms, '
      f'{GENERATOR} with 64 bits hashed from the key for training noise'
    )
  if seed is None:
    key = (
      'the key was destroyed when the run ended'
      if destroyed
      else 'the key is in the work folder, readable by its owner alone, until the run '
      'ends: whoever has it can remove the noise'
    )
    return (
      f'operating system entropy ({64 * math.prod(SHAPES[generator])}-bit key, {made}, '
      f'one stream per step); {key}'
    )
  return (
    f'FIXED SEED {seed} ({made}): anyone who knows the seed can remove the noise, so '
    'this run protects nobody and serves tests only'
  )


def sampling_secret(key: jax.Array) -> bytes:
  """32 secret bytes for the Poisson sampler, a one-way hash of the noise key."""
  return hashlib.sha256(b'ldm_jax sampling ' + _bytes(key)).digest()


def save_key(path: str | os.PathLike, key: jax.Array) -> None:
  """Writes the key atomically with file mode 600; overwrites an existing file first."""
  destroy_key(path)
  word = CHACHA20 if generator_of(key) == CHACHA20 else GENERATOR
  atomic.write_bytes(path, f'{word} {_bytes(key).hex()}\n'.encode(), mode=0o600)


def load_key(path: str | os.PathLike) -> jax.Array:
  """Reads a key written by `save_key`.

  Raises:
    ValueError: the file is missing, damaged, or accessible to other users.
  """
  path = pathlib.Path(path)
  try:
    mode = path.stat().st_mode & 0o777
    text = path.read_text(encoding='ascii').split()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f'the noise key {path} cannot be read ({error}). A private run can resume only '
      'with its own key: restore the file, or start again in an empty workdir.'
    ) from None
  if mode & 0o077:
    raise ValueError(
      f'the noise key {path} has mode {mode:o}; it must be 600, or other users of this '
      'machine can remove the noise. Run chmod 600 if nobody has read it.'
    )
  try:
    word, data = text
    shape = SHAPES[{GENERATOR: THREEFRY, CHACHA20: CHACHA20}[word]]
    words = np.frombuffer(bytes.fromhex(data), '<u4').astype(np.uint32)
    words = words.reshape(*shape, 2)
  except (ValueError, KeyError):
    raise ValueError(
      f'the noise key {path} is damaged; it must hold "{GENERATOR}" and 16 hexadecimal '
      f'digits, or "{CHACHA20}" and 64. Restore the file, or start again in an empty '
      'workdir.'
    ) from None
  return prng.wrap(jnp.asarray(words))


def destroy_key(path: str | os.PathLike) -> None:
  """Overwrites and removes the key file, see `atomic.destroy`."""
  atomic.destroy(path)


def _bytes(key):
  return np.asarray(jax.random.key_data(key), '<u4').tobytes()
