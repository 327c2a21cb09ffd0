"""Devices as a mesh with the axes `data` and `fsdp`.

Both axes split the examples of a batch. Parameters, optimiser state and averages are
stored sharded over `fsdp` (along their largest divisible axis) and are gathered where
they are used. The same train step runs on one CPU, on N virtual devices, on a pod and
on several processes, each of which places the rows of a batch that its devices hold.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax import processes
from ldm_jax.types import PyTree

EXAMPLES = P(('data', 'fsdp'))


def make_mesh(
  data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Mesh of (data, fsdp) devices; data = -1 takes all devices that fsdp leaves.

  Of several processes, each takes part with data x fsdp of its devices; what one does
  alone (`processes.alone`) it does on its own.

  Raises:
    ValueError: data x fsdp is not positive or exceeds the number of devices.
  """
  if devices is None:
    devices = _devices(data, fsdp)
    if data > 0:
      data *= processes.count()
    if processes.count() < processes.total():  # fsdp may reach beyond one process
      fsdp = math.gcd(fsdp, len(devices))
  if data == -1:
    data = max(len(devices) // fsdp, 1)
  if data < 1 or fsdp < 1 or data * fsdp > len(devices):
    raise ValueError(
      f'config.mesh asks for data={data} x fsdp={fsdp} devices, but there are '
      f'{len(devices)}. Set mesh.data=-1 or a product that fits.'
    )
  grid = np.asarray(devices[: data * fsdp]).reshape(data, fsdp)
  return Mesh(grid, ('data', 'fsdp'))


def _devices(data, fsdp):
  """The devices of the processes at work here, those of a process side by side."""
  if processes.count() == 1:
    return jax.devices() if processes.total() == 1 else jax.local_devices()
  found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  if data == -1:
    return found
  of = {number: [] for number in range(processes.count())}
  for device in found:
    of[device.process_index].append(device)
  return [device for each in of.values() for device in each[: data * fsdp]]


def on_own_devices(mesh_section: Mapping[str, int]) -> Mesh:
  """The mesh of the section `mesh` over the devices of this process alone."""
  with processes.alone():
    return make_mesh(mesh_section['data'], mesh_section['fsdp'])


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
  # One process checks for all, on a mesh of its own devices.
  count = mesh.size * processes.total() // processes.count()
  for key, size in sizes.items():
    if size % count:
      raise ValueError(
        f'config.{key} is {size}, which does not divide over {count} devices. '
        f'Choose a multiple of {count}, or fewer devices with --config.mesh.data.'
      )


def own_rows(mesh: Mesh, num_rows: int) -> np.ndarray:
  """Positions in a batch of `num_rows` that the devices of this process hold.

  Those of all processes together are the whole batch, each once. A batch that the
  number of devices does not divide is refused by `put_rows`.
  """
  if processes.count() == 1:
    return np.arange(num_rows)
  places = np.array_split(np.arange(num_rows), mesh.size)
  own = [
    place
    for place, device in zip(places, mesh.devices.flat, strict=True)
    if device.process_index == processes.number()
  ]
  return np.concatenate(own)


def put_rows(mesh: Mesh, tree: PyTree, num_rows: int) -> PyTree:
  """Places a batch of which this process has the rows `own_rows` alone.

  Args:
    mesh: devices.
    tree: arrays (m,...) of these rows, in their order.
    num_rows: of the whole batch.

  Raises:
    ValueError: num_rows is not a multiple of the number of devices.
  """
  if processes.count() == 1:
    return put_examples(mesh, tree)
  _check_rows(num_rows, mesh.size)
  sharding = NamedSharding(mesh, EXAMPLES)
  place = jax.make_array_from_process_local_data
  return jax.tree.map(
    lambda leaf: place(sharding, np.asarray(leaf), (num_rows, *np.shape(leaf)[1:])),
    tree,
  )


def _check_rows(num_rows, count):
  if num_rows % count:
    raise ValueError(
      f'A batch of {num_rows} examples does not divide over {count} devices. '
      'Choose batch sizes (autoencoder, diffusion, adapt.privacy.chunk_size) that '
      'are multiples of the device count, or a smaller mesh.data.'
    )


def put_examples(mesh: Mesh, tree: PyTree) -> PyTree:
  """Places arrays with a leading example axis, split over all devices.

  Every process passes the whole batch; see `put_rows` for where it has its rows alone.

  Raises:
    ValueError: the leading axis is not a multiple of the number of devices.
  """
  if processes.count() > 1:
    num_rows = len(jax.tree.leaves(tree)[0])
    own = own_rows(mesh, num_rows)
    return put_rows(mesh, jax.tree.map(lambda leaf: leaf[own], tree), num_rows)
  count = mesh.size
  for leaf in jax.tree.leaves(tree):
    _check_rows(len(leaf), count)
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
  """Places parameters or optimiser state by `state_shardings`.

  Every process passes all of it, the same values, and places its part.
  """
  return put_by(tree, state_shardings(mesh, tree))


def put_by(tree: PyTree, shardings: PyTree) -> PyTree:
  """Places arrays that every process has whole, each by its sharding."""
  if processes.count() == 1:
    return jax.device_put(tree, shardings)

  # Not device_put: it compares the values of all processes, by sending them around.
  def put(leaf, sharding):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      return jax.device_put(leaf, sharding)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(
      whole.shape, sharding, lambda index: whole[index]
    )

  return jax.tree.map(put, tree, shardings)


def gather_parts(part: np.ndarray) -> np.ndarray:
  """Arrays of one shape (...), one of each process -> (count,...) in all of them."""
  return np.asarray(multihost_utils.process_allgather(part))


def stops(mesh: Mesh) -> Callable[[int], int]:
  """Builds agree(number) -> number, by which all processes stop after the same step.

  Args:
    mesh: devices.

  Returns:
    A function to be called after every step with the number of the signal that came to
    this process, 0 for none. It returns a signal that came to any of them, one step
    later where there are several: so no step waits for the answer.
  """
  if processes.count() == 1:
    return lambda number: number
  largest = jax.jit(jax.numpy.max, out_shardings=NamedSharding(mesh, P()))
  asked: list[jax.Array] = []

  def agree(number):
    own = np.full(len(own_rows(mesh, mesh.size)), number, np.int32)
    asked.append(largest(put_rows(mesh, own, mesh.size)))
    return int(asked.pop(0)) if len(asked) > 1 else 0

  return agree
