"""Secret draws of the host by ChaCha20, a cryptographic generator [RFC8439].

An option (`adapt.privacy.generator='chacha20'`) for what this process draws itself:
which patients a step sees, and the noise of means and histograms. The cipher is that of
the package `cryptography` (OpenSSL). Training noise is drawn on the device, by
threefry, whatever this option says.

Every purpose and step has a key of its own, the SHA-256 of the run's 256-bit secret
with a label, so the nonce is always zero and no keystream is used twice.

[RFC8439] ChaCha20 and Poly1305 for IETF Protocols."""

import hashlib
from types import ModuleType

import numpy as np

from ldm_jax.types import Array

NAME = 'chacha20'  # of adapt.privacy.generator
CHUNK = 8192  # bytes of keystream made at once


def cipher() -> ModuleType:
  """The package's module of ciphers.

  Raises:
    ValueError: `cryptography` is not installed.
  """
  try:
    from cryptography.hazmat.primitives import ciphers
  except ImportError:
    raise ValueError(
      "adapt.privacy.generator='chacha20' needs the package cryptography, which is not "
      "installed. Install it (pip install 'ldm-jax[chacha20]'), or set "
      "adapt.privacy.generator='threefry'."
    ) from None
  return ciphers


class Keystream:
  """The bytes of one key, in order.

  Attributes:
    material: secret bytes; the cipher's key is their SHA-256.
  """

  def __init__(self, material: bytes):
    ciphers = cipher()
    key = hashlib.sha256(material).digest()
    chacha = ciphers.algorithms.ChaCha20(key, bytes(16))
    self._encryptor = ciphers.Cipher(chacha, mode=None).encryptor()

  def __repr__(self):
    return 'Keystream(secret)'

  def take(self, count: int) -> bytes:
    """The next `count` bytes."""
    return self._encryptor.update(bytes(count))


class Draws:
  """What `sampling` asks of a numpy Generator, from a keystream."""

  def __init__(self, material: bytes):
    self._stream = Keystream(material)

  def random(self, size: int) -> np.ndarray:
    """Uniform multiples of 2^-53 in [0, 1), (size,) float64."""
    return (self._words(size) >> np.uint64(11)) * 2.0**-53

  def integers(self, limit: int, *, size: int) -> np.ndarray:
    """Uniform integers in 0 ... limit - 1, (size,) int64, without bias."""
    end = 2**64 - 2**64 % limit
    found = np.empty(0, np.uint64)
    while found.size < size:
      words = self._words(size - found.size)
      found = np.concatenate([found, words[words <= np.uint64(end - 1)]])
    return (found % np.uint64(limit)).astype(np.int64)

  def choice(self, values: Array, size: int, *, replace: bool) -> np.ndarray:
    """A uniformly random subset of `size` of the values (n,), in random order.

    Raises:
      ValueError: `replace` is true; draws with replacement are not needed.
    """
    if replace:
      raise ValueError('expected replace=False, got True; draw integers instead.')
    values = np.asarray(values)
    words = self._words(values.size)
    while np.unique(words).size < words.size:  # equal words would have an order
      words = self._words(values.size)
    return values[np.argsort(words)[:size]]

  def _words(self, count):
    return np.frombuffer(self._stream.take(8 * count), '<u8')
