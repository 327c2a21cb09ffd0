"""Devices as a mesh with the axes `data` and `fsdp`.

Both axes split the examples of a batch. Parameters, optimiser state and averages are
stored sharded over `fsdp` (along their largest divisible axis) and are gathered where
they are used. The same train step runs on one CPU, on N virtual devices, on a pod and
on several processes, each of which passes the whole batch and places its part of it.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.types import PyTree

EXAMPLES = P(('data', 'fsdp'))


def make_mesh(
  data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Mesh of (data, fsdp) devices; data = -1 takes all devices that fsdp leaves.

  Raises:
    ValueError: data x fsdp is not positive or exceeds the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  if data == -1:
    data = max(len(devices) // fsdp, 1)
  if data < 1 or fsdp < 1 or data * fsdp > len(devices):
    raise ValueError(
      f'config.mesh asks for data={data} x fsdp={fsdp} devices, but there are '
      f'{len(devices)}. Set mesh.data=-1 or a product that fits.'
    )
  grid = np.asarray(devices[: data * fsdp]).reshape(data, fsdp)
  return Mesh(grid, ('data', 'fsdp'))


def state_shardings(mesh: Mesh, tree: PyTree) -> PyTree:
  """Shardings of stored state: split over `fsdp` where an axis divides, else whole."""
  size = mesh.shape['fsdp']

  def sharding(leaf):
    shape = np.shape(leaf)
    divisible = [axis for axis, n in enumerate(shape) if n % size == 0 and n >= size]
    if size == 1 or not divisible:
      return NamedSharding(mesh, P())
    axis = max(divisible, key=lambda axis: shape[axis])
    return NamedSharding(mesh, P(*(None,) * axis, 'fsdp'))

  return jax.tree.map(sharding, tree)


def check_divides(mesh: Mesh, sizes: Mapping[str, int]) -> None:
  """Checks batch sizes before anything is trained.

  Args:
    mesh: devices.
    sizes: config key -> examples per step.

  Raises:
    ValueError: a size is not a multiple of the number of devices.
  """
  for key, size in sizes.items():
    if size % mesh.size:
      raise ValueError(
        f'config.{key} is {size}, which does not divide over {mesh.size} devices. '
        f'Choose a multiple of {mesh.size}, or fewer devices with --config.mesh.data.'
      )


def put_examples(mesh: Mesh, tree: PyTree) -> PyTree:
  """Places arrays with a leading example axis, split over all devices.

  Raises:
    ValueError: the leading axis is not a multiple of the number of devices.
  """
  count = mesh.size
  for leaf in jax.tree.leaves(tree):
    if len(leaf) % count:
      raise ValueError(
        f'A batch of {len(leaf)} examples does not divide over {count} devices. '
        'Choose batch sizes (autoencoder, diffusion, adapt.privacy.chunk_size) that '
        'are multiples of the device count, or a smaller mesh.data.'
      )
  return jax.device_put(tree, NamedSharding(mesh, EXAMPLES))


def on_host(tree: PyTree) -> PyTree:
  """A tree of whole NumPy arrays, also where other processes hold parts of them."""

  def whole(leaf):
    is_here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    if is_here or leaf.is_fully_replicated:
      return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.tree.map(whole, tree)


def put_state(mesh: Mesh, tree: PyTree) -> PyTree:
  """Places parameters or optimiser state by `state_shardings`."""
  return jax.device_put(tree, state_shardings(mesh, tree))
