"""The user's registry of private releases: work folders that share patients add up.

A ledger lies in one work folder, so a second folder on the same patients would begin
at zero. The registry is one JSONL file outside all work folders, to which every ledger
adds its releases, each with the hashes of its patients. Releases of other folders that
share at least ONE patient count in full: more than the truth for patients that are not
shared, never less for those that are.

Identifiers are hashed with a random salt that lies beside the file (mode 600): nobody
who has the file alone can test a name. Patients are known by their identifier; data
sets whose identifiers coincide by chance are told apart by `ledger.dataset`.

A release is checked against the budget and added under one lock, so of two runs at
once only one can spend the same remainder. Runs without noise are not added: their
models must not leave at all, and each work folder remembers them."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ldm_jax import atomic, locks

FILE, SALT, LOCK = 'releases.jsonl', 'salt', 'lock'


def default_folder() -> pathlib.Path:
  """$XDG_STATE_HOME/ldm_jax/privacy, or that of ~/.local/state."""
  state = os.environ.get('XDG_STATE_HOME') or '~/.local/state'
  return pathlib.Path(state).expanduser() / 'ldm_jax' / 'privacy'


class Registry:
  """The releases of all ledgers of a user.

  Attributes:
    folder: of the registry; it is created with the first release.
    dataset: name that tells data sets with equal identifiers apart.
    read_too: a registry of which the releases count as well, or None; nothing is added
      to it.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    dataset: str = '',
    read_too: str | os.PathLike | None = None,
  ):
    self.folder = pathlib.Path(folder).expanduser().resolve()
    self.dataset = dataset
    other = None if read_too is None else Registry(read_too, dataset)
    self.read_too = other if other and other.folder != self.folder else None

  def releases(self, patients: Iterable[str]) -> list[dict[str, Any]]:
    """Releases about any of these patients, oldest first, of all ledgers.

    Raises:
      ValueError: the file is damaged or cannot be read.
    """
    patients, lines = tuple(patients), self._read()
    mine = self._hashes(patients) if lines else set()
    found = [line['release'] for line in lines if not mine.isdisjoint(line['patients'])]
    ids = {release['id'] for release in found}
    others = self.read_too.releases(patients) if self.read_too else []
    return [*(each for each in others if each['id'] not in ids), *found]

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Only one process at a time is in such a block.

    Raises:
      ValueError: the folder cannot be written, or its file system has no locks.
    """
    try:
      self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
      (self.folder / LOCK).touch(mode=0o600)
    except OSError as error:
      raise self._unwritable(error) from error
    with locks.exclusive(self.folder / LOCK):
      yield

  def add(self, patients: Iterable[str], releases: Iterable[Mapping[str, Any]]) -> None:
    """Adds releases with noise that are not there yet; call it within `locked`.

    Raises:
      ValueError: the file is damaged or cannot be written; it is as before then.
    """
    releases = [each for each in releases if each['noise_multiplier'] > 0]
    known = {line['release']['id'] for line in self._read()}
    fresh = [each for each in releases if each['id'] not in known]
    if not fresh:
      return
    hashes = sorted(self._hashes(patients))
    path = self.folder / FILE
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    for each in fresh:
      text += json.dumps({'patients': hashes, 'release': dict(each)}, sort_keys=True)
      text += '\n'
    try:
      atomic.write_bytes(path, text.encode(), mode=0o600)
    except OSError as error:
      raise self._unwritable(error) from error

  def _read(self):
    path = self.folder / FILE
    try:
      text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
      return []
    except (OSError, UnicodeDecodeError) as error:
      raise self._damaged(path, str(error)) from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
      try:
        content = json.loads(line)
        if not (content['release']['id'] and isinstance(content['patients'], list)):
          raise ValueError
      except (ValueError, KeyError, TypeError) as error:
        raise self._damaged(path, f'line {number}') from error
      found.append(content)
    return found

  def _hashes(self, patients):
    salt = self._salt()
    return {
      hashlib.sha256(f'{salt}\n{self.dataset}\n{patient}'.encode()).hexdigest()[:32]
      for patient in patients
    }

  def _salt(self):
    path = self.folder / SALT
    try:
      if not path.exists():
        if (self.folder / FILE).exists():
          raise self._damaged(path, 'it is missing')
        atomic.write_bytes(path, secrets.token_hex(32).encode(), mode=0o600)
      return path.read_text(encoding='ascii').strip()
    except OSError as error:
      raise self._unwritable(error) from error

  def _unwritable(self, error):
    return ValueError(
      f'the registry of private releases {self.folder} cannot be used '
      f'({error.strerror or error}); without it a second work folder would spend the '
      'budget of these patients again. Set --config.ledger.registry to a folder that '
      'is kept with the data.'
    )

  def _damaged(self, path, what):
    return ValueError(
      f'the registry of private releases {path} is damaged or cannot be read ({what}); '
      'what these patients have spent is unknown. Restore the folder from a backup.'
    )
