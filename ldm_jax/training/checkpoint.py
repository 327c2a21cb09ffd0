"""Checkpoints with orbax: atomic, complete, and free of the device topology."""

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
  """The latest train state of one stage; a kill leaves the one before."""

  def __init__(self, folder):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1, enable_async_checkpointing=False
    )
    self._manager = ocp.CheckpointManager(
      (folder / 'state').absolute(), options=options
    )

  def save(self, step, state):
    """Writes the state of this step and then drops the one before."""
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
  """Writes nested parameters for the stages that follow (no optimiser, no key)."""
  with ocp.StandardCheckpointer() as checkpointer:
    host = jax.tree.map(np.asarray, params)
    checkpointer.save((folder / 'params').absolute(), host, force=True)


def load_params(folder):
  """Nested parameters of a finished stage, on the default device.

  Raises:
    ValueError: if the stage has not been run.
  """
  path = (folder / 'params').absolute()
  if not path.is_dir():
    raise ValueError(
      f'There are no parameters at {path}: the stage {folder.name!r} has not '
      f'finished in this work folder. Run it first (--stages={folder.name},...).'
    )
  with ocp.StandardCheckpointer() as checkpointer:
    metadata = checkpointer.metadata(path)
    tree = getattr(metadata, 'item_metadata', metadata)
    tree = getattr(tree, 'tree', tree)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree
    )
    return checkpointer.restore(path, abstract)
