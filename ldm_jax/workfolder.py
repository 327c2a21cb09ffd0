"""The work folder: where every stage writes, what is done, and the event log.

A stage writes beside what it replaces (see `replace_results`): until it has finished,
the folder holds what it held before, byte for byte, and finished stages stay finished.
"""

import contextlib
import functools
import json
import os
import pathlib
import secrets
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ldm_jax import (
  atomic,
  damaged_files,
  locks,
  processes,
  replace_results,
  wandb_board,
)
from ldm_jax.config.parsing import digest, require_local, to_plain
from ldm_jax.types import Config, Progress

# Raised when what a stage writes changes meaning, so that old results are redone.
FORMAT = 1
FLUSH_SECONDS = 5  # a killed run lacks at most so much of its curves


class WorkFolder:
  """Paths, completed stages and the log of one run.

  Attributes:
    root: pathlib.Path of the folder.
    wandb_project: of Weights & Biases, where curves are also sent; '' for none.

  Raises:
    ValueError: if the folder is an address, or cannot be created or written.
  """

  def __init__(self, root: str | os.PathLike):
    require_local('--workdir', str(root))
    self.root = pathlib.Path(root)
    self.wandb_project = ''
    self._boards: dict[str, SummaryWriter] = {}
    self._running: set[str] = set()
    if not processes.is_first():
      return  # `cluster.check_shared` has looked at the folder
    try:
      self.root.mkdir(parents=True, exist_ok=True)
      probe = self.root / f'.write-test-{os.getpid()}'
      probe.write_text('')
      probe.unlink()
    except OSError as error:
      raise ValueError(
        f'The work folder {str(self.root)!r} cannot be written ({error.strerror}). '
        'Choose a folder on a writable disk with --workdir.'
      ) from None

  def path(self, *parts: str) -> pathlib.Path:
    """A path to write to, its parent created; beside the old one while a stage runs."""
    path = self._beside(parts) or self.root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

  def found(self, *parts: str) -> pathlib.Path:
    """A path to read from: what a running stage has written so far, else the old."""
    path = self._beside(parts)
    is_own = path is not None and (parts[0] == 'checkpoints' or path.exists())
    return path if is_own else self.root.joinpath(*parts)

  @property
  def store(self) -> pathlib.Path:
    """The folder of prepared volumes, latents and the ledger."""
    return self.path('store')

  def checkpoints(self, stage: str) -> pathlib.Path:
    """The folder of a stage; of a running one, the folder in which it runs."""
    return self.path('checkpoints', stage)

  def read_json(self, *parts: str) -> Any:
    """The JSON file's content, or None where there is no such file.

    Raises:
      ValueError: the file is damaged; the message says what to do.
    """
    path = self.found(*parts)
    return damaged_files.read_json(path) if path.is_file() else None

  def write_json(self, content: Any, *parts: str) -> pathlib.Path:
    """Writes a JSON file atomically and returns its path."""
    path = self.path(*parts)
    atomic.write_json(path, content, allow_nan=True)
    return path

  def write_text(self, text: str, *parts: str) -> None:
    """Writes a text file atomically."""
    atomic.write_text(self.path(*parts), text)

  def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
    """Arrays that a stage left in store/<name>, as a dict, or None.

    They are read from the disk where they are indexed (`atomic.map_arrays`).

    Raises:
      ValueError: the file is damaged; the message says what to do.
    """
    path = self.found('store', name)
    if not path.is_file():
      return None
    try:
      return atomic.map_arrays(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as failure:
      raise damaged_files.error(path, failure) from failure

  def log(self, stage: str, **event: Any) -> None:
    """Appends one line to log.jsonl, and its numbers to TensorBoard.

    Numbers also go to W&B where a project is named, but for internal lines. Private
    losses must never come here. The first process writes for all.
    """
    if not processes.is_first():
      return
    line = json.dumps({'time': round(time.time(), 3), 'stage': stage, **event})
    with open(self.path('log.jsonl'), 'a', encoding='utf-8') as file:
      file.write(line + '\n')
    if self.wandb_project:
      wandb_board.board(self.wandb_project, self.root).add(stage, event)
    if 'step' in event:
      if stage not in self._boards:
        path = self.path('tensorboard', stage)
        self._boards[stage] = SummaryWriter(path, flush_secs=FLUSH_SECONDS)
      for name, value in event.items():
        if name != 'step' and isinstance(value, int | float):
          self._boards[stage].add_scalar(name, value, event['step'])
    elif event.get('event') == 'end':
      # A thread writes what is added; at the end of a process it may not come to it.
      for board in self._boards.values():
        board.close()
      self._boards.clear()

  def events(self) -> list[dict[str, Any]]:
    """The log's events; a line cut by a kill is passed over."""
    path = self.root / 'log.jsonl'
    events = []
    for line in path.read_text().splitlines() if path.is_file() else ():
      try:
        events.append(json.loads(line))
      except json.JSONDecodeError:
        continue
    return events

  def finished(self, stage: str) -> str | None:
    """The fingerprint under which the stage was finished, or None."""
    return (self.read_json('checkpoints', stage, 'done.json') or {}).get('fingerprint')

  def interrupted(self, stage: str, mark: str = 'fingerprint') -> str | None:
    """The fingerprint, or another mark, of a run of the stage that was cut, or None."""
    started = (
      self.read_json('checkpoints', replace_results.beside(stage), 'started.json') or {}
    )
    return started.get(mark)

  def restart(
    self, stage: str, fingerprint: str, apart_from_memory: str | None = None
  ) -> pathlib.Path:
    """Begins the stage beside what it left before: an equal run that was cut resumes.

    Until `finish`, this object reads and writes checkpoints/<stage> and its
    outputs there.

    Args:
      stage: its name.
      fingerprint: of the run.
      apart_from_memory: the fingerprint without keys that change how much memory the
        run takes; one that was cut resumes with other values of these, too.

    Returns:
      The stage's folder of checkpoints.
    """
    self.enter(stage)
    folder = self.checkpoints(stage)
    # No stage resumes from outputs; a half table is not to be taken for a whole one.
    shutil.rmtree(folder / 'outputs', ignore_errors=True)
    if folder.is_dir():
      apart = self.interrupted(stage, 'apart_from_memory')
      if self.interrupted(stage) == fingerprint or (
        apart and apart == apart_from_memory
      ):
        return folder
    # First, so that a kill in the middle leaves no half folder that looks resumable.
    (folder / 'started.json').unlink(missing_ok=True)
    replace_results.remove_folder(folder)
    # The run's name tells two runs with equal config apart: their releases add up.
    started = {'fingerprint': fingerprint, 'run': secrets.token_hex(8)}
    if apart_from_memory:
      started['apart_from_memory'] = apart_from_memory
    self.write_json(started, 'checkpoints', stage, 'started.json')
    return folder

  def enter(self, stage: str) -> None:
    """Reads and writes beside what a stage left before, in a run that has begun."""
    self._running.add(stage)

  def leave(self, stage: str) -> None:
    """Reads again what the stage left, which has been replaced or not."""
    self._running.discard(stage)

  def finish(self, stage: str, fingerprint: str, **summary: Any) -> None:
    """Marks the stage as done with these inputs and this config, and replaces the old.

    Killed before done.json, the old results stay; after it, `settle` goes on.
    """
    made = self.checkpoints(stage) / 'outputs'
    names = [
      name for name in replace_results.OUTPUTS.get(stage, ()) if (made / name).exists()
    ]
    self.write_json(names, 'checkpoints', stage, 'outputs.json')
    self.write_json(
      {'fingerprint': fingerprint, **summary}, 'checkpoints', stage, 'done.json'
    )
    self.leave(stage)
    replace_results.replace(self.root, stage)

  def settle(self) -> None:
    """Completes a replacement that was cut, as every stage does before it begins.

    Not while another process works in the folder: it may be replacing just now.
    """
    if locks.holder(self.root) is None:
      replace_results.settle(self.root)

  def _beside(self, parts):
    """Where a running stage has what lies in these parts of the folder, or None."""
    name = '/'.join(parts)
    for stage in self._running:
      folder = self.root / 'checkpoints' / replace_results.beside(stage)
      if parts[:2] == ('checkpoints', stage):
        return folder.joinpath(*parts[2:])
      if any(
        f'{name}/'.startswith(f'{output}/')
        for output in replace_results.OUTPUTS.get(stage, ())
      ):
        return folder / 'outputs' / name
    return None


@contextlib.contextmanager
def progress_bar(
  title: str, total: int, unit: str, counted: bool = True
) -> Iterator[Progress]:
  """Shows a bar; yields advance(done, total=None), to be called as work goes on.

  Args:
    title, unit: shown beside it.
    total: number of units.
    counted: False shows tenths of the way, of fewer than ten units nothing: how many
      scans patients have who are not public does not belong in a log.
  """
  quiet, parts = not processes.is_first(), total
  if not counted:
    quiet, parts, unit = quiet or total < 10, 10, 'tenth'
  with tqdm(total=parts, desc=title, unit=unit, mininterval=0.5, disable=quiet) as bar:
    yield lambda done, _=None: bar.update(done * parts // max(total, 1) - bar.n)


def fingerprint(
  config: Config, sections: Sequence[str], upstream: Mapping[str, Any]
) -> str:
  """Hash of the config sections a stage reads and of what it builds on.

  A section is a key of the config, or 'section.key' of one in it; '-section.key' is
  left out of the section that was named before.
  """
  plain = to_plain(config)
  for section in sections:
    if section.startswith('-'):
      *parents, leaf = section[1:].split('.')
      del functools.reduce(lambda part, key: part[key], parents, plain)[leaf]
  chosen = {
    section: functools.reduce(lambda part, key: part[key], section.split('.'), plain)
    for section in sections
    if not section.startswith('-')
  }
  return digest({'format': FORMAT, 'config': chosen, 'upstream': upstream})
