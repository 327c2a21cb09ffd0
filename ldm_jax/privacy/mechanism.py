"""Gaussian noise on clipped sums, and the secret key it is drawn from.

The output of `privatise` is private; nothing before it may be logged or kept. The order
is the privacy argument: clipped sum over all devices, noise once, division by the
expected batch. The expected batch is the public q * N, never the number of patients
drawn.

The secret is one jax key of the generator threefry2x32: 64 bits from the operating
system. The step number is folded into it, so a resumed run repeats the noise of a step
and does not release that step twice. The draws of the Poisson sampler are derived from
the same secret by SHA-256. Two limits are stated in every privacy statement:
threefry2x32 is not certified as a cryptographic generator, and the noise is float32,
whose normal draws lie on a finite grid and end near 5.4 standard deviations.
"""

import hashlib
import os
import pathlib
import secrets
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import threefry
from ldm_jax.privacy.checks import check_noise_multiplier
from ldm_jax.types import PyTree

GENERATOR = 'threefry2x32'


def add_noise(
  clipped_sum: PyTree,
  key: jax.Array,
  step: int | jax.Array,
  noise_multiplier: float,
  clip_norm: float | jax.Array,
  *,
  clip_only: bool = False,
) -> PyTree:
  """Adds N(0, (noise_multiplier * clip_norm)^2) to every coordinate, in float32.

  Args:
    clipped_sum: tree of arrays; one patient changes it by at most clip_norm in L2.
    key: the run's noise key. Step t draws one vector for all coordinates, in the order
      of the tree's leaves, from fold_in(key, t). (One draw per leaf would take ten
      times as long to compile.)
    step: int, may be traced.
    noise_multiplier: sigma, a Python number > 0.
    clip_norm: > 0.
    clip_only: True allows noise_multiplier 0: no noise, and epsilon is infinite.

  Returns:
    A float32 tree.

  Raises:
    ValueError: noise_multiplier negative, not finite, or 0 without clip_only.
  """
  check_noise_multiplier(noise_multiplier, clip_only)
  if noise_multiplier == 0:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), clipped_sum)
  size = sum(leaf.size for leaf in jax.tree.leaves(clipped_sum))
  return add_vector(
    clipped_sum, noise_multiplier * clip_norm * normals(key, step, size)
  )


def normals(key: jax.Array, step: int | jax.Array, size: int) -> jax.Array:
  """Standard normals (size,) of one step; no other step or purpose draws them."""
  return threefry.normals(jax.random.fold_in(key, step), size)


def add_vector(tree: PyTree, vector: jax.Array) -> PyTree:
  """Adds a vector (all coordinates, in the order of the leaves); a float32 tree."""
  leaves, structure = jax.tree.flatten(tree)
  ends = np.cumsum([leaf.size for leaf in leaves], dtype=int)
  parts = jnp.split(vector, ends[:-1])
  sums = [
    leaf.astype(jnp.float32) + part.reshape(leaf.shape)
    for leaf, part in zip(leaves, parts, strict=True)
  ]
  return jax.tree.unflatten(structure, sums)


def privatise(
  clipped_sum: PyTree,
  key: jax.Array,
  step: int | jax.Array,
  noise_multiplier: float,
  clip_norm: float | jax.Array,
  expected_batch: float,
  *,
  clip_only: bool = False,
) -> PyTree:
  """Turns a clipped sum into the private estimate of the mean gradient.

  Args:
    expected_batch: q * N > 0, public and constant; the other arguments are those of
      `add_noise`.

  Returns:
    A float32 tree: (clipped_sum + noise) / expected_batch.

  Raises:
    ValueError: as `add_noise`, or expected_batch not > 0.
  """
  check_expected_batch(expected_batch)
  noisy = add_noise(
    clipped_sum, key, step, noise_multiplier, clip_norm, clip_only=clip_only
  )
  return jax.tree.map(lambda leaf: leaf / expected_batch, noisy)


def check_expected_batch(expected_batch: float) -> None:
  """Raises ValueError unless the expected batch is above 0."""
  if not expected_batch > 0:
    raise ValueError(
      f'the expected batch is {expected_batch}; it must be positive. '
      'Change adapt.privacy.batch_size.'
    )


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
  return jax.random.wrap_key_data(jnp.asarray(data), impl=GENERATOR)


def describe_randomness(seed: int | None = None) -> str:
  """One sentence for the privacy statement: the source of noise and draws."""
  if seed is None:
    return (
      f'operating system entropy (64-bit key, generator {GENERATOR}, one stream per '
      'step); the key is destroyed when the run ends'
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
  """Writes the key atomically with file mode 600, replacing an existing file."""
  path = pathlib.Path(path)
  data = np.asarray(jax.random.key_data(key), '<u4').tobytes().hex()
  descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  try:
    with os.fdopen(descriptor, 'w') as file:  # mkstemp creates with mode 600
      file.write(f'{GENERATOR} {data}\n')
      file.flush()
      os.fsync(file.fileno())
    os.replace(name, path)
  except BaseException:
    pathlib.Path(name).unlink(missing_ok=True)
    raise


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
  return jax.random.wrap_key_data(jnp.asarray(words), impl=GENERATOR)


def destroy_key(path: str | os.PathLike) -> None:
  """Overwrites and removes the key file; no error if it does not exist.

  Overwriting erases the old bytes on ordinary disks only; journals, snapshots and flash
  storage may keep a copy.
  """
  path = pathlib.Path(path)
  try:
    with open(path, 'r+b') as file:
      file.write(b'0' * path.stat().st_size)
      file.flush()
      os.fsync(file.fileno())
  except FileNotFoundError:
    return
  path.unlink()
