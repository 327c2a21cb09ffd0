"""The noise of a private run on many devices: each makes its own part of it.

All coordinates of the sum are one vector, filled up to a multiple of the number of
devices and cut into as many parts. A normal follows from key, step and its place in the
vector alone (`noise.threefry_normals`), so the parts are those of the vector that one
device would make, each coordinate gets one normal, and no device holds the others'. So
is the memory of correlated noise, which is as large as several sums. Only the noisy
sum is put together again.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.privacy import noise
from ldm_jax.types import Array, PyTree


def over_devices(
  kind: noise.Independent | noise.Correlated, mesh: Mesh
) -> tuple[Callable[..., Array], Callable[..., tuple[PyTree, Array]], NamedSharding]:
  """`start` and `add` of a noise, shared out over the devices of a mesh.

  Args:
    kind: the noise.
    mesh: devices; all of them call both functions together, with the whole sum.

  Returns:
    (start, add, sharding of the memory). With one device they are the noise's own.

  Raises:
    ValueError: by `add`, for 2**32 coordinates or more.
  """
  if mesh.size == 1:
    return kind.start, kind.add, NamedSharding(mesh, P())
  parts = P(mesh.axis_names)
  of_memory = P(None, mesh.axis_names) if kind.remembers else P()

  def local_part(total, memory, key, step, clip_norm):
    length = _padded(total, mesh) // mesh.size
    first = jax.lax.axis_index(mesh.axis_names) * length
    part = jax.lax.dynamic_slice(_vector(total, mesh), (first,), (length,))
    return kind.add_part(part, memory, key, step, clip_norm, first)

  add_parts = jax.shard_map(
    local_part,
    mesh=mesh,
    in_specs=(P(), of_memory, P(), P(), P()),
    out_specs=(parts, of_memory),
    check_vma=False,
  )

  def start(total):
    memory = kind.start(jnp.zeros(_padded(total, mesh)))
    return jax.lax.with_sharding_constraint(memory, NamedSharding(mesh, of_memory))

  def add(total, memory, key, step, clip_norm):
    noise.check_size(_padded(total, mesh))
    vector, memory = add_parts(total, memory, key, step, clip_norm)
    # Gathered once: cut first, each leaf would be gathered alone, after messages that
    # move its pieces between the devices whose parts it crosses.
    vector = jax.lax.with_sharding_constraint(vector, NamedSharding(mesh, P()))
    leaves, structure = jax.tree.flatten(total)
    noisy, end = [], 0
    for leaf in leaves:
      begin, end = end, end + leaf.size
      noisy.append(vector[begin:end].reshape(leaf.shape))
    return jax.tree.unflatten(structure, noisy), memory

  return start, add, NamedSharding(mesh, of_memory)


def _padded(total, mesh):
  """Number of coordinates, up to a multiple of the number of devices."""
  size = sum(leaf.size for leaf in jax.tree.leaves(total))
  return -(-size // mesh.size) * mesh.size


def _vector(total, mesh):
  """All coordinates (n,) float32, in the order of the leaves, then zeros."""
  flat = [leaf.astype(jnp.float32).ravel() for leaf in jax.tree.leaves(total)]
  fill = _padded(total, mesh) - sum(leaf.size for leaf in flat)
  return jnp.concatenate([*flat, jnp.zeros(fill, jnp.float32)])
