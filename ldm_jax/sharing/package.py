"""A shared model as files: their names, a folder or zip of them, and their hashes.

  config.json        settings that sampling reads, and what made the model
  model.safetensors  autoencoder, denoiser, statistics of the latents
  preprocess.json    how a scan becomes the model's input; voxel size of samples
  schema.json        attributes with ranges, categories and units
  privacy.json       the privacy statement
  prior.json         attributes of the private cohort, released with noise (optional)
  model_card.md, report/public.html
  samples/           synthetic volumes as a data set
  counterfactuals/   edits of public scans as a data set (optional)
  SHA256SUMS         of all other files, as sha256sum -c reads it

A zip holds the same files below shareable/, uncompressed and with one fixed time, so
that equal files give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

from ldm_jax import atomic

CONFIG, WEIGHTS, PREPROCESS = 'config.json', 'model.safetensors', 'preprocess.json'
SCHEMA, PRIVACY, PRIOR = 'schema.json', 'privacy.json', 'prior.json'
CARD, REPORT, SUMS = 'model_card.md', 'report/public.html', 'SHA256SUMS'
SAMPLES, COUNTERFACTUALS, NAME = 'samples', 'counterfactuals', 'shareable'
# What the samples were asked for.
PARTICIPANTS = 'samples/participants.tsv'
NEEDED = (CONFIG, WEIGHTS, PREPROCESS, SCHEMA, PRIVACY)
# What `read` takes into memory at most, of a file that a stranger may have made.
MAX_JSON = 2**24
FIRST_TIME = (1980, 1, 1, 0, 0, 0)


def seal(folder: pathlib.Path) -> None:
  """Writes SHA256SUMS of all files of a folder."""
  lines = [
    f'{_sha256(path.read_bytes())}  {path.relative_to(folder).as_posix()}\n'
    for path in files(folder)
    if path != folder / SUMS
  ]
  atomic.write_text(folder / SUMS, ''.join(lines))


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  """All files of a folder, sorted."""
  return sorted(path for path in folder.rglob('*') if not path.is_dir())


def write_zip(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Writes a folder as a zip: equal files give equal bytes."""
  with (
    atomic.writing(path) as file,
    zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive,
  ):
    for each in files(folder):
      name = f'{NAME}/{each.relative_to(folder).as_posix()}'
      entry = zipfile.ZipInfo(name, FIRST_TIME)
      entry.external_attr = 0o644 << 16
      entry.create_system = 3  # the same on every system
      archive.writestr(entry, each.read_bytes())


def read(path: str | os.PathLike) -> dict[str, bytes]:
  """{name: content} of the model's own files and the samples' table, without pages.

  Args:
    path: a folder or a zip made by --stages=export. Nothing is unpacked.

  Raises:
    ValueError: no such folder or zip, a file is missing, too large or not the one whose
      hash SHA256SUMS has.
  """
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    found = _of_folder(path)
  elif path.is_file() and zipfile.is_zipfile(path):
    try:
      found = _of_zip(path)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
      raise ValueError(f'{path} is a damaged zip ({error}); copy it again.') from error
  else:
    raise ValueError(
      f'{path} is no model; expected the folder shareable/ or the file shareable.zip '
      'that ldm-jax --stages=export makes.'
    )
  missing = [name for name in (*NEEDED, SUMS) if name not in found]
  if missing:
    raise ValueError(
      f'{path} lacks {", ".join(missing)}; expected all files that ldm-jax '
      '--stages=export makes. Copy it again, whole.'
    )
  noted = sums(found.pop(SUMS).decode('utf-8', 'replace'))
  for name, content in found.items():
    if noted.get(name) != _sha256(content):
      raise ValueError(
        f'{path}: {name} is not the file whose hash {SUMS} has, so it was changed or '
        'cut off. Copy the model again from where it came.'
      )
  return found


def sums(text: str) -> dict[str, str]:
  """{name: hash} of a SHA256SUMS."""
  lines = (line.partition('  ') for line in text.splitlines())
  return {name: digest for digest, _, name in lines}


def parsed(name: str, content: bytes) -> Any:
  """The value of a JSON file.

  Raises:
    ValueError: it is no JSON.
  """
  try:
    return json.loads(content)
  except ValueError as error:
    raise ValueError(f'{name} of the model is no JSON ({error}).') from error


def dumped(value: Mapping[str, Any] | list) -> str:
  """A value as the text of a JSON file."""
  return json.dumps(value, indent=1, allow_nan=False) + '\n'


def _of_folder(folder):
  found = {}
  for name in (*NEEDED, PRIOR, PARTICIPANTS, SUMS):
    path = folder / name
    if path.is_file():
      _check_size(name, path.stat().st_size)
      found[name] = path.read_bytes()
  return found


def _of_zip(path):
  with zipfile.ZipFile(path) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    # As we write it, or as a folder that was zipped by hand.
    tops = {name.rpartition('/')[0] for name in entries if name.endswith(CONFIG)}
    top = min(tops, key=len, default='')
    found = {}
    for name in (*NEEDED, PRIOR, PARTICIPANTS, SUMS):
      entry = entries.get(f'{top}/{name}' if top else name)
      if entry is not None:
        _check_size(name, entry.file_size)
        if entry.file_size > 1000 * max(entry.compress_size, 2**16):
          raise ValueError(f'{path}: {name} is compressed beyond what numbers can be.')
        found[name] = archive.read(entry)
  return found


def _check_size(name, size):
  if name != WEIGHTS and size > MAX_JSON:
    raise ValueError(
      f'{name} of the model has {size} bytes; expected at most {MAX_JSON}. It was not '
      'made by ldm-jax --stages=export.'
    )


def _sha256(content):
  return hashlib.sha256(content).hexdigest()
