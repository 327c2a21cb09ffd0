"""A network's parameters as a few arrays: flat dict {path: array} <-> packed dict.

An optimiser that works on a hundred arrays is compiled a hundred times and, on a CPU,
spends most of its time between them. Packed, all matrices are rows of square blocks:
a convolution's kernel is the matrix (taps x inputs, outputs), transposed if it is wider
than tall, its columns filled with zeros to a multiple of BLOCK, its rows cut into
blocks as high as wide. Blocks of one width are one array (blocks, width, width);
everything that is no matrix is one vector.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.training import one_off
from ldm_jax.training.plain_step import ExampleLosses
from ldm_jax.types import Array

BLOCK = 64
# A matrix with fewer rows or columns goes into the vector.
SMALLEST = 16
VECTOR = 'vector'


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a matrix lies: blocks [start, stop) of the array for its width.

  Attributes:
    path: of the parameter.
    rows, columns: of the matrix, rows >= columns.
    is_turned: whether it is the transpose of the parameter's matrix.
    start, stop: its blocks.
  """

  path: str
  rows: int
  columns: int
  is_turned: bool
  start: int
  stop: int


class Packing:
  """How the parameters of one network are packed; equal shapes give equal packings.

  Attributes:
    places: name of an array of blocks -> its matrices, in the order of their blocks.
    pack: {path: array} -> packed dict.
    unpack: packed dict -> {path: array}.
  """

  def __init__(self, flat: Mapping[str, Array], apart: Collection[str] = ()):
    """Finds a place for each parameter.

    Args:
      flat: {path: array}, of which only the shapes count.
      apart: prefixes of paths that are not packed but keep their own entries.
    """
    self._shapes = {path: tuple(np.shape(value)) for path, value in flat.items()}
    self._apart = [path for path in flat if path.startswith(tuple(apart))]
    self.places: dict[str, list[Place]] = {}
    self._vector = []
    for path in sorted(flat.keys() - set(self._apart)):
      rows, columns = matrix_shape(self._shapes[path])
      if min(rows, columns) < SMALLEST:
        self._vector.append(path)
        continue
      is_turned = rows < columns
      rows, columns = max(rows, columns), min(rows, columns)
      width = -(-columns // BLOCK) * BLOCK
      places = self.places.setdefault(f'blocks of {width}', [])
      start = places[-1].stop if places else 0
      stop = start + -(-rows // width)
      places.append(Place(path, rows, columns, is_turned, start, stop))
    # Its transpose is the packing: what fills the blocks up is no parameter.
    unpack = jax.custom_vjp(self._unpack)
    unpack.defvjp(
      lambda packed: (self._unpack(packed), None),
      lambda _, gradient: (self._pack(gradient),),
    )
    # One program each: the hundred slices of a network would be compiled one by one.
    self.pack: Callable[[Mapping[str, Array]], dict[str, Array]] = one_off.jit(
      self._pack
    )
    self.unpack: Callable[[Mapping[str, Array]], dict[str, Array]] = one_off.jit(unpack)

  def _pack(self, flat):
    """{path: array} -> packed dict."""
    packed = {path: flat[path] for path in self._apart}
    for name, places in self.places.items():
      blocks = [_blocks(flat[place.path], place) for place in places]
      packed[name] = jnp.concatenate(blocks)
    if self._vector:
      packed[VECTOR] = jnp.concatenate([flat[path].ravel() for path in self._vector])
    return packed

  def _unpack(self, packed):
    """Packed dict -> {path: array}."""
    flat = {path: packed[path] for path in self._apart}
    for name, places in self.places.items():
      for place in places:
        rows = packed[name][place.start : place.stop].reshape(
          -1, packed[name].shape[-1]
        )
        matrix = rows[: place.rows, : place.columns]
        matrix = matrix.T if place.is_turned else matrix
        flat[place.path] = matrix.reshape(self._shapes[place.path])
    start = 0
    for path in self._vector:
      shape = self._shapes[path]
      stop = start + math.prod(shape)
      flat[path] = packed[VECTOR][start:stop].reshape(shape)
      start = stop
    return flat

  def mask(self, is_chosen: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """1 where a packed value belongs to a path that is chosen, else 0.

    Returns:
      As `pack`, of shapes that broadcast against the packed arrays.
    """
    found = {path: np.asarray(is_chosen(path), np.float32) for path in self._apart}
    for name, places in self.places.items():
      chosen = [is_chosen(place.path) for place in places]
      blocks = np.repeat(chosen, [place.stop - place.start for place in places])
      found[name] = blocks.astype(np.float32)[:, None, None]
    if self._vector:
      sizes = [math.prod(self._shapes[path]) for path in self._vector]
      chosen = [is_chosen(path) for path in self._vector]
      found[VECTOR] = np.repeat(chosen, sizes).astype(np.float32)
    return found

  def losses(self, example_losses: ExampleLosses) -> ExampleLosses:
    """Losses of packed parameters, for `training.plain_step`."""

    @functools.wraps(example_losses)
    def packed_losses(trained, *rest):
      return example_losses(self.unpack(trained), *rest)

    return packed_losses


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
  """(rows, columns) of a parameter of this shape; one row for a vector."""
  columns = shape[-1] if shape else 1
  return math.prod(shape) // max(columns, 1), columns


def _blocks(value, place):
  """A parameter as blocks (stop - start, width, width)."""
  num = place.stop - place.start
  width = -(-place.columns // BLOCK) * BLOCK
  matrix = value.reshape(matrix_shape(value.shape))
  matrix = matrix.T if place.is_turned else matrix
  fill = (0, num * width - place.rows), (0, width - place.columns)
  return jnp.pad(matrix, fill).reshape(num, width, width)
