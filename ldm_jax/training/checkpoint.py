"""Checkpoints with orbax: atomic, complete, and free of the device topology."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp

from ldm_jax.training.mesh import on_host

OVERHEAD = 2**16  # bytes of names and shapes beside the arrays


class Checkpoints:
  """The latest train state of one stage; a kill leaves the one before."""

  def __init__(self, folder):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    self._folder = (folder / 'state').absolute()
    with _writing(self._folder):
      self._manager = ocp.CheckpointManager(self._folder, options=options)

  def save(self, step, state):
    """Writes the state of this step and then drops the one before.

    Raises:
      OSError: the disk is full or not writable; the checkpoint before is intact.
    """
    with _writing(self._folder, state):
      self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

  def restore(self, state, shardings):
    """The saved state placed as `shardings`, or `state` where nothing was saved."""
    step = self._manager.latest_step()
    if step is None:
      return state
    abstract = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      state,
      shardings,
    )
    return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

  def close(self):
    self._manager.close()


def save_params(folder, params):
  """Writes nested parameters for the stages that follow (no optimiser, no key).

  Raises:
    OSError: the disk is full or not writable.
  """
  path = (folder / 'params').absolute()
  host = on_host(params)
  with _writing(path, host), ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, host, force=True)


def load_params(folder):
  """Nested parameters of a finished stage, on the default device.

  Raises:
    ValueError: if the stage has not been run.
  """
  path = (folder / 'params').absolute()
  if not path.is_dir():
    stage = folder.name.partition('.')[0]
    raise ValueError(
      f'There are no parameters at {path}: the stage {stage!r} has not '
      f'finished in this work folder. Run it first (--stages={stage},...).'
    )
  with ocp.StandardCheckpointer() as checkpointer:
    tree = _shapes(checkpointer, path)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree
    )
    return checkpointer.restore(path, abstract)


def described(folder, kind, key):
  """Options of the module in a checkpoint of ldm-jax-convert, None if it has none.

  Args:
    folder: the checkpoint, or ''.
    kind: class that the module must have.
    key: of the config, for the error.

  Raises:
    ValueError: if it is another module.
  """
  path = pathlib.Path(folder) / 'module.json'
  if not folder or not path.is_file():
    return None
  module = json.loads(path.read_text(encoding='utf-8'))
  if module['class'] != kind:
    raise ValueError(
      f'config.{key} is {str(folder)!r}, which holds a {module["class"]}; a {kind} is '
      'required.'
    )
  return module['options']


def check_fits(folder, params, key):
  """Refuses, from their shapes alone, what `load_into` would refuse.

  Args:
    folder, key: of `load_into`.
    params: nested parameters or their shapes.

  Raises:
    ValueError: if there are none, or if they do not fit, naming where.
  """
  folder = pathlib.Path(folder)
  if not (folder / 'params').is_dir():
    raise ValueError(
      f'config.{key} is {str(folder)!r}, where there is no folder params; give a '
      'checkpoint of ldm-jax-convert or checkpoints/<stage> of a work folder.'
    )
  with ocp.StandardCheckpointer() as checkpointer:
    found = _shapes(checkpointer, (folder / 'params').absolute())
  theirs, ours = (
    {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (found, params))
  )
  wrong = [
    f'{path} {theirs.get(path, "absent")} for {ours.get(path, "nothing")}'
    for path in sorted(theirs.keys() | ours.keys())
    if theirs.get(path) != ours.get(path)
  ]
  if wrong:
    raise ValueError(
      f'The parameters in {folder} (config.{key}) do not fit the network of the '
      f'config: {"; ".join(wrong[:4])}{"; ..." if len(wrong) > 4 else ""}. Set the '
      'options of its model to those it was trained with.'
    )


def load_into(folder, params, key):
  """Parameters of another run or of a converted file, of the shapes of params.

  Args:
    folder: holds `params`, as checkpoints/<stage> and CHECKPOINT of ldm-jax-convert do.
    params: nested parameters that they are to replace.
    key: of the config, for the error.

  Raises:
    ValueError: if there are none, or if they do not fit, naming where.
  """
  check_fits(folder, params, key)
  return load_params(pathlib.Path(folder))


def _shapes(checkpointer, path):
  """Nested shapes and types of a checkpoint's parameters."""
  metadata = checkpointer.metadata(path)
  tree = getattr(metadata, 'item_metadata', metadata)
  return getattr(tree, 'tree', tree)


@contextlib.contextmanager
def _writing(path, tree=()):
  """Says in one OSError, for the user, that a tree cannot be written.

  Room is asked for before, since orbax tells of a full disk in many words.
  """
  size = sum(
    np.dtype(leaf.dtype).itemsize * leaf.size for leaf in jax.tree.leaves(tree)
  )
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)  # orbax logs tracebacks of what it raises
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < size + OVERHEAD:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
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
  finally:
    logger.setLevel(level)
