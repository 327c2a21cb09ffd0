"""Embedded text of patients, from files: (n,m,e) flattened, NaN where no token is.

Any text encoder runs once, outside this program, and writes a file of token embeddings
per scan or patient (`data.prompts` makes sentences of attributes). They are appended to
the encoded attributes, as one vector per scan.
"""

from __future__ import annotations

import pathlib
import re
import zipfile

import numpy as np

from ldm_jax.data.store.split import Split

KEY = 'diffusion.text'


def read(files: str, split: Split, num_tokens: int, width: int) -> np.ndarray:
  """Returns (n, num_tokens * width) float32, one row per entry of the split.

  Args:
    files: path of the files, in which {id} stands for a scan's id and {patient} for
      its patient's: .npy (m,e), or .npz with 'text' (m,e) and, if some of its tokens
      are padding, 'mask' (m,). A scan without a file has no text.
    split: the prepared cohort.
    num_tokens: room for tokens.
    width: e.

  Raises:
    ValueError: no hole in the path, no file at all, or a file of another shape.
  """
  holes = re.findall(r'\{([^{}]*)\}', files)
  if not holes or set(holes) - {'id', 'patient'}:
    raise ValueError(
      f'{KEY}.files is {files!r}; expected a path with {{id}} or {{patient}}, such '
      "as 'text/{patient}.npy'."
    )
  rows = np.full((len(split), num_tokens, width), np.nan, np.float32)
  num_found = 0
  for row, name, patient in zip(rows, split.ids, split.patients, strict=True):
    path = pathlib.Path(files.replace('{id}', name).replace('{patient}', patient))
    path = path.expanduser()
    if path.is_file():
      tokens = _tokens(path, num_tokens, width)
      row[: len(tokens)] = tokens
      num_found += 1
  if len(split) and not num_found:
    raise ValueError(
      f'None of the {len(split)} scans of {split.name!r} has a file {files!r} (the '
      f'last path tried is {path}). Correct {KEY}.files, or leave it empty for no '
      'text.'
    )
  return rows.reshape(len(split), -1)


def read_one(file: str, num_tokens: int, width: int) -> np.ndarray:
  """Returns (num_tokens * width,) float32 of one file, as `read` does for many."""
  row = np.full((num_tokens, width), np.nan, np.float32)
  tokens = _tokens(pathlib.Path(file).expanduser(), num_tokens, width)
  row[: len(tokens)] = tokens
  return row.ravel()


def _tokens(path: pathlib.Path, num_tokens: int, width: int) -> np.ndarray:
  """(k,e) tokens of one file, padding left out."""
  try:
    loaded = np.load(path, allow_pickle=False)
    mask = None
    if not isinstance(loaded, np.ndarray):
      mask = loaded['mask'].astype(bool) if 'mask' in loaded else None
      loaded = loaded['text']
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f'{path} holds no token embeddings ({error}); expected a .npy array (m,e), or '
      "a .npz with 'text' (m,e). Write it again or remove it."
    ) from error
  tokens = np.asarray(loaded, np.float32)
  if tokens.ndim != 2 or tokens.shape[1] != width or not np.isfinite(tokens).all():
    raise ValueError(
      f'{path} holds an array of shape {tokens.shape}; expected finite token '
      f'embeddings (m, {width}). Set {KEY}.width to the text encoder that wrote it.'
    )
  if mask is not None:
    if mask.shape != tokens.shape[:1]:
      raise ValueError(
        f'{path} holds a mask of shape {mask.shape} for {len(tokens)} tokens; expected '
        'one truth value per token. Write the file again.'
      )
    tokens = tokens[mask]
  if len(tokens) > num_tokens:
    raise ValueError(
      f'{path} holds {len(tokens)} tokens, but {KEY}.num_tokens is {num_tokens}. Raise '
      'it.'
    )
  return tokens
