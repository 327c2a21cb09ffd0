"""Checkpoints with orbax: written atomically, independent of the device topology.

Saving and loading an adapted network: only the trained parameters are stored.

A small method thus has a small checkpoint, for instance its adapters instead of a
second copy of the network. Loading merges it with the network that it started from.
"""

import contextlib
import errno
import io
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Container, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ldm_jax import damaged_files, processes
from ldm_jax.models import adapters
from ldm_jax.training.mesh import on_host
from ldm_jax.training.state import TrainState, flatten, misfits, unflatten
from ldm_jax.types import PyTree

OVERHEAD = 2**16  # bytes for names and shapes, in addition to the arrays


class Checkpoints:
  """The two latest train states of one stage; a killed write leaves those before."""

  def __init__(self, folder: pathlib.Path):
    self._folder = (folder / 'state').absolute()
    self._open()

  def _open(self):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    with _writing(self._folder):
      self._manager = ocp.CheckpointManager(self._folder, options=options)

  def save(self, step: int, state: TrainState) -> None:
    """Writes the state of this step and then removes the one before the previous one.

    Raises:
      OSError: the disk is full or not writable; the previous checkpoint is intact.
    """
    with _writing(self._folder, state):
      self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
      if processes.is_first():
        damaged_files.note_files(self._folder / f'{step}', self._note(step))
    self._forget()

  def restore(self, state: TrainState, shardings: PyTree) -> TrainState:
    """The saved state, placed by `shardings`, or `state` if nothing was saved.

    A state that cannot be read is set aside, which is said, and the one before it
    taken; without one, `state`.
    """
    while (step := self.latest()) is not None:
      failure = None
      try:
        found = self.read(step, state, shardings)
      except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
        if not _is_damage(error):
          raise
        failure = error
      failed = [*filter(None, processes.gathered(failure and _words(failure)))]
      if not failed:
        return found
      self._set_aside(step, failed[0])
    return state

  def keep_latest(self) -> None:
    """Removes all states but the latest: the run has taken its last step."""
    for step in sorted(self._manager.all_steps())[:-1]:
      self._manager.delete(step)
    self._forget()

  def _note(self, step):
    return self._folder.with_name(f'state-{step}.files.json')

  def _forget(self):
    """Removes the notes of states that are gone."""
    if not processes.is_first():
      return
    kept = {self._note(step) for step in self._manager.all_steps()}
    for note in self._folder.parent.glob('state-*.files.json'):
      if note not in kept:
        note.unlink(missing_ok=True)

  def latest(self) -> int | None:
    """The step of the latest state, or None without any."""
    return processes.agreed(self._manager.latest_step())

  def read(self, step: int, state: TrainState, shardings: PyTree) -> TrainState:
    """The state of one step, as `restore`.

    Raises:
      ValueError: it is damaged; or another error of the libraries.
    """
    abstract = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      state,
      shardings,
    )
    folder, note = self._folder / f'{step}', self._note(step)
    damaged = processes.first(lambda: damaged_files.damaged_in(folder, note))
    if damaged:
      raise damaged_files.error(*damaged)
    with _quiet():
      return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

  def _set_aside(self, step, error):
    """Moves a damaged state out of the way, so that the one before is the latest."""
    self._manager.close()
    damaged, aside = self._folder / f'{step}', self._folder.parent / f'damaged-{step}'

    def move():
      shutil.rmtree(aside, ignore_errors=True)
      os.rename(damaged, aside)

    processes.first(move)
    self._open()
    left = self.latest()
    then = 'begins anew' if left is None else f'goes on from step {left}'
    print(
      f'The state after step {step} in {self._folder} is damaged: {error}. It '
      f'was moved to {aside}; training {then}.'
    )

  def close(self) -> None:
    """Closes the checkpoint manager."""
    self._manager.close()


def save_params(folder: pathlib.Path, params: PyTree) -> None:
  """Writes nested parameters for later stages (without optimiser state and keys).

  Raises:
    OSError: the disk is full or not writable.
  """
  path = (folder / 'params').absolute()
  host, note = on_host(params), _note_of(path)

  def write():
    note.unlink(missing_ok=True)
    with _writing(path, host):
      with _checkpointer() as checkpointer:
        checkpointer.save(path, host, force=True)
      damaged_files.note_files(path, note, hashed=True)

  processes.first(write)


def _checkpointer():
  """Orbax for what one process writes or reads by itself, though others be there."""
  if processes.total() == 1:
    return ocp.StandardCheckpointer()
  own = jax.process_index()
  return ocp.StandardCheckpointer(
    multiprocessing_options=ocp.options.MultiprocessingOptions(
      primary_host=own, active_processes={own}, barrier_sync_key_prefix=f'own{own}'
    )
  )


def load_params(folder: pathlib.Path) -> PyTree:
  """Nested parameters of a finished stage, on the default device.

  Raises:
    ValueError: the stage has not been run, or the parameters are damaged.
  """
  path = (folder / 'params').absolute()
  if not path.is_dir():
    stage = folder.name.partition('.')[0]
    raise ValueError(
      f'There are no parameters at {path}: the stage {stage!r} has not '
      f'finished in this work folder. Run it first (--stages={stage},...).'
    )
  with _reading(path), _checkpointer() as checkpointer:
    tree = _shapes(checkpointer, path)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree
    )
    return checkpointer.restore(path, abstract)


def described(folder: str | os.PathLike, kind: str, key: str) -> dict[str, Any] | None:
  """Options of the module in a checkpoint of ldm-jax-convert, or None if it has none.

  Args:
    folder: the checkpoint, or ''.
    kind: required class of the module.
    key: config key, for the error.

  Raises:
    ValueError: the checkpoint has a module of another class.
  """
  path = pathlib.Path(folder) / 'module.json'
  if not folder or not path.is_file():
    return None
  module = damaged_files.read_json(path)
  if module['class'] != kind:
    raise ValueError(
      f'config.{key} is {str(folder)!r}, which holds a {module["class"]}; a {kind} is '
      'required.'
    )
  return module['options']


def check_fits(folder: str | os.PathLike, params: PyTree, key: str) -> None:
  """Refuses, from their shapes alone, what `load_into` would refuse.

  Args:
    folder, key: as in `load_into`.
    params: nested parameters or their shapes.

  Raises:
    ValueError: there are no parameters, or they do not fit; the message says where.
  """
  folder = pathlib.Path(folder)
  if not (folder / 'params').is_dir():
    raise ValueError(
      f'config.{key} is {str(folder)!r}, where there is no folder params; give a '
      'checkpoint of ldm-jax-convert or checkpoints/<stage> of a work folder.'
    )
  place = (folder / 'params').absolute()
  with _reading(place), _checkpointer() as checkpointer:
    found = _shapes(checkpointer, place)
  if not jax.tree.leaves(found):
    raise damaged_files.error(place, 'it lists no parameters')
  theirs, ours = (
    {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (found, params))
  )
  if wrong := misfits(theirs, ours, theirs.keys() | ours.keys()):
    raise ValueError(
      f'The parameters in {folder} (config.{key}) do not fit the network of the '
      f'config: {wrong}. Set the options of its model to those it was trained with.'
    )


def load_into(folder: str | os.PathLike, params: PyTree, key: str) -> PyTree:
  """Parameters from another run or a converted file, with the shapes of `params`.

  Args:
    folder: contains `params`, as checkpoints/<stage> and CHECKPOINT of ldm-jax-convert
      do.
    params: nested parameters that are to be replaced.
    key: config key, for the error.

  Raises:
    ValueError: there are no parameters, or they do not fit; the message says where.
  """
  check_fits(folder, params, key)
  return load_params(pathlib.Path(folder))


def _shapes(checkpointer, path):
  """Nested shapes and types of a checkpoint's parameters."""
  metadata = checkpointer.metadata(path)
  tree = getattr(metadata, 'item_metadata', metadata)
  return getattr(tree, 'tree', tree)


def _note_of(path):
  return path.with_name(f'{path.name}.files.json')


@contextlib.contextmanager
def _reading(path):
  """Turns what the libraries say of damaged parameters into one sentence."""
  damaged_files.check_files(path, _note_of(path))
  try:
    with _quiet():
      yield
  except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
    if not _is_damage(error):
      raise
    raise damaged_files.error(path, _words(error)) from error


def _is_damage(error):
  """Whether an error of reading is the file's fault, not that of memory or rights."""
  text = str(error)
  if 'RESOURCE_EXHAUSTED' in text or 'out of memory' in text.lower():
    return False
  codes = re.findall(r"os_error_code='(\d+)'", text)
  code = int(codes[0]) if codes else getattr(error, 'errno', None)
  return code in (None, errno.ENOENT, errno.EIO)


def _words(error):
  """What is wrong, in few words: tensorstore tells in hundreds where it noticed."""
  if isinstance(error, damaged_files.DamagedError):
    return error.found
  text = ' '.join(str(error).split())
  found = re.search(r'Error (?:reading|opening|decoding)[^\[;]{0,120}', text)
  words = found.group(0) if found else text
  return f'{type(error).__name__}: {words[:120]}'


@contextlib.contextmanager
def _quiet():
  """Orbax logs tracebacks of what it raises."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # and prints what it noticed
      yield
  finally:
    logger.setLevel(level)


@contextlib.contextmanager
def _writing(path, tree=()):
  """Turns errors of writing a tree into one OSError with a message for the user.

  The free space is checked first, because orbax reports a full disk in a long
  traceback.
  """
  size = sum(
    np.dtype(leaf.dtype).itemsize * leaf.size for leaf in jax.tree.leaves(tree)
  )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < size + OVERHEAD:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with _quiet():
      yield
  except (OSError, ValueError, RuntimeError) as error:
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found.group(1)) if found else getattr(error, 'errno', None)
    if code is None:
      raise
    raise OSError(
      code,
      f'{path} could not be written ({os.strerror(code)}); required is a writable '
      f'folder with {size / 1e6 + 0.1:.1f} MB of free space. Free some space or choose '
      'another --workdir; what was written so far is intact and the same command '
      'continues from it',
    ) from error


def save_adapted(
  folder: pathlib.Path,
  averages: Sequence[PyTree],
  decays: Sequence[float],
  frozen: PyTree,
  base: Container[str],
) -> None:
  """Writes the parameters that `base` does not contain, once for each average.

  Args:
    folder: of the stage; the first average is written to `params`, any other one to
      `ema_<decay>/params`.
    averages: flat dicts of trained parameters, one per decay.
    decays: of these averages.
    frozen: flat dict of the parameters that were not trained.
    base: paths of the parameters that later stages load from elsewhere.
  """
  kept = {path: leaf for path, leaf in frozen.items() if path not in base}
  # The first average is written last: `params` marks the stage as complete.
  for number, average in reversed(list(enumerate(averages))):
    place = _place(folder, decays, number)
    save_params(place, unflatten({**kept, **average}))


def load_adapted(
  folder: pathlib.Path, decays: Sequence[float], decay: float | None, base: PyTree
) -> PyTree:
  """Nested parameters of the whole network, with adapters merged into its kernels.

  Args:
    folder: of the stage.
    decays: config.adapt.ema_decay of the run.
    decay: which of them; None for the first.
    base: nested parameters that the stage started from, {} if its own checkpoint is
      complete.

  Raises:
    ValueError: the stage has not been run, or has no average of this decay.
  """
  number = 0 if decay is None else list(decays).index(decay)
  moved = load_params(_place(folder, decays, number))
  return unflatten(adapters.merge({**flatten(base), **flatten(moved)}))


def _place(folder, decays, number):
  return folder if number == 0 else folder / f'ema_{decays[number]:g}'
