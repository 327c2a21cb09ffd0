"""What is said of a file of the work folder that is damaged: which, why, what to do.

A stage that can make its results again does so when it is run; of a trained model the
last state lies beside the parameters, from which they are written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
import zlib
from typing import Any

from ldm_jax import atomic, replace_results

TRAINED = ('autoencoder', 'diffusion', 'adapt')
# Networks beside the stages, and the stages that learn them.
LEARNED_IN = {'measurement': 'evaluate', 'perceptual': 'autoencoder'}
# JSON file -> keys of its object. One that lacks them is of another version or program.
KEYS = {
  'config.json': (),
  'done.json': ('fingerprint',),
  'latent_statistics.json': ('mean', 'std'),
  'metrics.json': (),
  'model.json': ('settings',),
  'module.json': ('class', 'options'),
  'preprocess.json': ('spec',),
  'privacy.json': (),
  'started.json': ('fingerprint',),
}
CAUSE = 'It was cut off, by a full disk, a kill or an unfinished copy or download.'


class DamagedError(ValueError):
  """A file that cannot be read.

  Attributes:
    found: the file and what is wrong with it, without advice.
  """

  found = ''


def error(path: str | os.PathLike, found: object) -> DamagedError:
  """The error for a file or folder that cannot be read.

  Args:
    path: of the file or folder.
    found: what is wrong with it, such as an exception, of which one line is kept.
  """
  words = ' '.join(str(found).split()) or type(found).__name__
  words = words if len(words) <= 160 else f'{words[:160]} ...'
  made = DamagedError(f'{path} is damaged ({words}). {CAUSE} {remedy(path)}')
  made.found = f'{path}: {words}'
  return made


def remedy(path: str | os.PathLike) -> str:
  """What to delete and to run, by where the file lies in a work folder."""
  path = pathlib.Path(path)
  parts = path.parts
  if 'checkpoints' in parts[:-1]:
    at = len(parts) - 1 - parts[::-1].index('checkpoints')
    root, name = pathlib.Path(*parts[:at]), parts[at + 1]
    return _of_checkpoints(root / 'checkpoints' / name, parts[at + 2 :])
  if path.name == 'config.json':
    return f'Delete {path}: the next command writes it.'
  if path.name.startswith('release-'):
    return (
      f'Put {path} back from a copy: the noise that it was released with is gone, and '
      'another release, by --stages=adapt with another config, spends privacy again.'
    )
  if path.name == 'privacy.json':  # it is compared with the ledger before a run
    return (
      f'Put {path} back from a copy, or delete it and run --stages=prepare, which '
      'writes it again from the ledger.'
    )
  if 'latents' in parts:
    return 'Run --stages=encode, which makes it again.'
  for stage, names in replace_results.OUTPUTS.items():
    if any(f'{path}'.endswith(os.path.join('', *name.split('/'))) for name in names):
      return f'Run --stages={stage}, which makes it again.'
  return f'Delete {path} and run the stage that wrote it again.'


def _of_checkpoints(folder, inside):
  stage = folder.name.partition('.')[0]
  if folder.name.endswith(replace_results.NEW):
    cost = (
      ' (of adapt, the budget that it spent stays spent)' if stage == 'adapt' else ''
    )
    return (
      f'It belongs to a run that has not finished: delete {folder} and run '
      f'--stages={stage} again, which begins anew{cost}.'
    )
  if stage in LEARNED_IN:
    return f'Delete {folder} and run --stages={LEARNED_IN[stage]}: it is learned again.'
  if stage not in TRAINED:
    return f'Run --stages={stage}, which makes it again.'
  place = folder / (inside[0] if inside else 'params')
  names = f'{place}' if place.name == 'done.json' else f'{place} and {folder}/done.json'
  if place.name not in ('params', 'done.json'):
    names = f'{folder}/params, {names}'
  begun = folder.with_name(replace_results.beside(stage))
  if begun.exists():  # it would go on in place of the finished one
    names = f'{begun}, {names}'
  told = f'Delete {names} and run --stages={stage}'
  if (folder / 'state').is_dir():
    return (
      f'{told}: it goes on from its last state, which is there, and trains no step.'
    )
  spends = ', which spends privacy again' if stage == 'adapt' else ''
  return f'Put {folder} back from a copy, or delete it and train again{spends}.'


def note_files(folder: pathlib.Path, note: pathlib.Path, hashed: bool = False) -> None:
  """Writes the sizes of a folder's files to `note`, which `check_files` compares.

  Args:
    folder: whose files are complete.
    note: a file outside of it.
    hashed: whether also their CRC-32, for which they are read again.
  """
  found = {
    path.relative_to(folder).as_posix(): [path.stat().st_size, hashed and _crc(path)]
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
  atomic.write_json(note, found)


def check_files(folder: pathlib.Path, note: pathlib.Path) -> None:
  """Compares a folder with what `note_files` wrote; without a note nothing is known.

  Raises:
    DamagedError: a file is missing, cut off or changed; it is named.
  """
  if damaged := damaged_in(folder, note):
    raise error(*damaged)


def damaged_in(folder: pathlib.Path, note: pathlib.Path) -> tuple[str, str] | None:
  """(file, what is wrong with it) as `check_files` finds it, or None."""
  try:
    noted = json.loads(note.read_bytes())
    noted = [(name, size, crc) for name, (size, crc) in noted.items()]
  except (OSError, ValueError, TypeError, AttributeError):
    return None
  for name, size, crc in noted:
    path = folder / name
    found = path.stat().st_size if path.is_file() else None
    if found is None:
      return str(path), 'it is missing'
    if found != size:
      return str(path), f'{found} bytes instead of {size}'
    if crc is not False and _crc(path) != crc:
      return str(path), f'its {size} bytes are not those that were written'
  return None


def file_hash(path: str | os.PathLike) -> str:
  """sha256 of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _crc(path):
  crc = 0
  with open(path, 'rb') as file:
    while block := file.read(2**20):
      crc = zlib.crc32(block, crc)
  return crc


def read_json(path: str | os.PathLike) -> Any:
  """Content of a JSON file.

  Raises:
    DamagedError: it is empty, no JSON, or not what KEYS says of its name; the message
      says what to do.
    OSError: there is no such file, or it cannot be read.
  """
  path = pathlib.Path(path)
  text = path.read_bytes()
  try:
    found = json.loads(text)
  except ValueError as failure:
    raise error(path, failure if text.strip(b'\0 \n') else 'it is empty') from failure
  wrong = _unlike(path.name, found)
  if wrong:
    raise error(path, wrong)
  return found


def _unlike(name: str, found: Any) -> str:
  """What is wrong with the content of a JSON file of this name; '' for nothing."""
  if name not in KEYS:
    return ''
  if not isinstance(found, dict):
    return f'expected a JSON object, got {type(found).__name__}'
  missing = [key for key in KEYS[name] if key not in found]
  return f'its JSON object has no {", ".join(map(repr, missing))}' if missing else ''


def is_whole(path: pathlib.Path) -> bool:
  """Whether a JSON or .npz file can be read; other files need only be there."""
  try:
    if path.suffix == '.json':
      return not _unlike(path.name, json.loads(path.read_bytes()))
    if path.suffix == '.npz':
      with zipfile.ZipFile(path) as file:
        return bool(file.namelist())
    return path.exists()
  except (OSError, ValueError, zipfile.BadZipFile):
    return False
