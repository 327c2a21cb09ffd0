"""Latents of a prepared split by one autoencoder, beside the volumes in the store.

  <store>/latents/<...>.npy   (n,d,h,w,c), one per entry of the split, memory-mapped

The posterior mean is stored, never a draw: training again and again on one draw would
fit its noise. With the log variance beside it, training draws afresh at every step. A
file is named by the autoencoder, the kind and the entries' keys, so that latents of
other weights, scans or preprocessing are never read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib

import numpy as np

from ldm_jax import atomic, damaged_files
from ldm_jax.data.store.split import Split

KINDS = ('mean', 'logvar')


def write(
  store_dir: str | os.PathLike,
  split: Split,
  tag: str,
  array: np.ndarray,
  kind: str = 'mean',
) -> None:
  """Stores the latents of a split by one autoencoder.

  Args:
    store_dir: folder of the store.
    split: whose entries were encoded.
    tag: hash of the autoencoder.
    array: (n,d,h,w,c), one per entry.
    kind: one of KINDS, of the posterior.

  Raises:
    ValueError: not one latent per entry, or values that are not finite.
    OSError: the store cannot be written.
  """
  array = np.asarray(array)
  if array.shape[:1] != (len(split),) or not np.isfinite(array).all():
    raise ValueError(
      f'Expected {len(split)} finite latents ({kind}), one per entry, got shape '
      f'{array.shape} with {int((~np.isfinite(array)).sum())} non-finite values. The '
      'autoencoder has diverged: lower autoencoder.learning_rate.'
    )
  buffer = io.BytesIO()
  np.save(buffer, array)
  atomic.write_bytes(path(store_dir, split, tag, kind), buffer.getbuffer())


def read(
  store_dir: str | os.PathLike, split: Split, tag: str, kind: str = 'mean'
) -> np.ndarray | None:
  """Returns the stored latents (n,d,h,w,c), memory-mapped, or None.

  Raises:
    ValueError: the file is damaged; the message says what to do.
  """
  file = path(store_dir, split, tag, kind)
  try:
    array = np.load(file, mmap_mode='r')
  except FileNotFoundError:
    return None
  except (OSError, ValueError, EOFError) as failure:
    raise damaged_files.error(file, failure) from failure
  return array if len(array) == len(split) else None


def is_whole(
  store_dir: str | os.PathLike, split: Split, tag: str, kind: str = 'mean'
) -> bool:
  """Whether the latents are stored and can be read."""
  try:
    return read(store_dir, split, tag, kind) is not None
  except ValueError:
    return False


def path(
  store_dir: str | os.PathLike, split: Split, tag: str, kind: str = 'mean'
) -> pathlib.Path:
  """The file of the latents of a split by one autoencoder.

  Raises:
    ValueError: a kind that is not in KINDS.
  """
  if kind not in KINDS:
    raise ValueError(
      f'Latents of kind {kind!r} are not stored; expected one of {KINDS}.'
    )
  text = json.dumps([tag, kind, split.keys])
  name = hashlib.sha256(text.encode()).hexdigest()
  return pathlib.Path(store_dir) / 'latents' / f'{name}.npy'
