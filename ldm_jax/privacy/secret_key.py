"""The secret that a private run's noise and draws come from: made, kept, destroyed.

It is one jax key of the generator threefry2x32: 64 bits from the operating system. The
step is folded into it (`privacy/noise.py`), so a run that resumes repeats the noise of
a step instead of releasing that step twice. The draws of the Poisson sampler come from
the same secret, by SHA-256, and so do those of `discrete_gaussian`, by SHAKE-256. Every
privacy statement says that threefry2x32 is not certified as a cryptographic
generator."""

import hashlib
import os
import pathlib
import secrets

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import atomic, prng

GENERATOR = prng.GENERATOR


def new_noise_key(seed: int | None = None) -> jax.Array:
  """Creates the secret noise key: 64 bits of OS entropy, or fixed by a seed.

  Args:
    seed: None for a real run. An int fixes the noise, so anyone who knows it can
      subtract the noise; for tests and tiny runs only, and `describe_randomness` says
      so.

  Returns:
    A typed jax key of `GENERATOR`.
  """
  if seed is None:
    data = np.frombuffer(secrets.token_bytes(8), np.uint32)
  else:
    digest = hashlib.sha256(f'ldm_jax noise {int(seed)}'.encode()).digest()
    data = np.frombuffer(digest[:8], '<u4').astype(np.uint32)
  return prng.wrap(jnp.asarray(data))


def describe_randomness(seed: int | None = None, destroyed: bool = False) -> str:
  """One sentence for the privacy statement: the source of noise and draws.

  Args:
    seed: of the noise key; None for a real run.
    destroyed: whether the key has been overwritten and removed.
  """
  if seed is None:
    key = (
      'the key was destroyed when the run ended'
      if destroyed
      else 'the key is in the work folder, readable by its owner alone, until the run '
      'ends: whoever has it can remove the noise'
    )
    return (
      f'operating system entropy (64-bit key, generator {GENERATOR}, one stream per '
      f'step); {key}'
    )
  return (
    f'FIXED SEED {seed} (generator {GENERATOR}): anyone who knows the seed can remove '
    'the noise, so this run protects nobody and serves tests only'
  )


def sampling_secret(key: jax.Array) -> bytes:
  """32 secret bytes for the Poisson sampler, a one-way hash of the noise key."""
  data = np.asarray(jax.random.key_data(key), '<u4').tobytes()
  return hashlib.sha256(b'ldm_jax sampling ' + data).digest()


def save_key(path: str | os.PathLike, key: jax.Array) -> None:
  """Writes the key atomically with file mode 600; overwrites an existing file first."""
  destroy_key(path)
  data = np.asarray(jax.random.key_data(key), '<u4').tobytes().hex()
  atomic.write_bytes(path, f'{GENERATOR} {data}\n'.encode(), mode=0o600)


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
    generator, data = text
    words = np.frombuffer(bytes.fromhex(data), '<u4').astype(np.uint32)
    if generator != GENERATOR or words.size != 2:
      raise ValueError
  except ValueError:
    raise ValueError(
      f'the noise key {path} is damaged; it must hold "{GENERATOR}" and 16 hexadecimal '
      'digits. Restore the file, or start again in an empty workdir.'
    ) from None
  return prng.wrap(jnp.asarray(words))


def destroy_key(path: str | os.PathLike) -> None:
  """Overwrites and removes the key file, see `atomic.destroy`."""
  atomic.destroy(path)
