"""Converts weights of reference networks to our modules and back, bit for bit.

A reference (`reference_monai`, `reference_diffusers`) consists of our module for a
config, and of `name(path, kernel_axes)`, the reference's tensor name for each of our
parameters. The expected tensors and their shapes follow from our module; missing and
unknown tensors are errors. Several of our parameters may be parts of one tensor, in
order along its first axis.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ldm_jax import prng
from ldm_jax.types import Array, PyTree, Shape


@dataclasses.dataclass(frozen=True)
class Reference:
  """How a reference network corresponds to one of our modules.

  Attributes:
    module: ours.
    inputs: abstract inputs with which it can be initialised.
    name: (path (str, ...), number of axes of the kernel beside it) -> tensor name.
    matrices: tensor name -> whether the reference stores this 1x1 convolution as a
      matrix.
  """

  module: nn.Module
  inputs: tuple
  name: Callable
  matrices: Callable = lambda name: False

  def shapes(self) -> dict[tuple[str, ...], Shape]:
    """{path: shape} of our parameters; nothing is computed."""
    return self._shapes

  @functools.cached_property
  def _shapes(self):
    variables = jax.eval_shape(self.module.init, prng.key(0), *self.inputs)
    flat = flatten_dict(variables['params'])
    return {path: leaf.shape for path, leaf in flat.items()}


def to_ours(reference: Reference, tensors: Mapping[str, Array]) -> PyTree:
  """Nested parameters of reference.module from {name: array}.

  Raises:
    ValueError: listing tensors that are unknown, missing or of another shape.
  """
  plan, shapes = _plan(reference), reference.shapes()
  problems = _differences(plan, tensors)
  for name in sorted(set(plan) & set(tensors)):
    expected = _their_shape(reference, name, plan[name], shapes)
    if tuple(tensors[name].shape) != expected:
      problems.append(
        f'{name} has the shape {tuple(tensors[name].shape)}, expected {expected}'
      )
  if problems:
    raise ValueError(
      'These weights do not belong to this config: '
      + '; '.join(problems)
      + '. Give the config that the weights were trained with.'
    )
  params = {}
  for name, paths in plan.items():
    array, start = np.asarray(tensors[name]), 0
    for path in paths:
      length = _their_axis(path, shapes[path])
      part = array if len(paths) == 1 else array[start : start + length]
      params[path] = np.ascontiguousarray(_ours(path, part, shapes[path]))
      start += length
  return unflatten_dict(params)


def to_theirs(reference: Reference, params: PyTree) -> dict[str, np.ndarray]:
  """{name: array} of the reference from our nested parameters.

  Raises:
    ValueError: listing parameters that are unknown, missing or of another shape.
  """
  plan, shapes = _plan(reference), reference.shapes()
  flat = flatten_dict(params)
  problems = _differences(
    {'/'.join(path) for path in shapes}, {'/'.join(path) for path in flat}
  )
  problems += [
    f'{"/".join(path)} has the shape {np.shape(flat[path])}, expected {shape}'
    for path, shape in shapes.items()
    if path in flat and np.shape(flat[path]) != shape
  ]
  if problems:
    raise ValueError(
      'These parameters do not belong to this config: '
      + '; '.join(problems)
      + '. Give the config that they were trained with.'
    )
  tensors = {}
  for name, paths in plan.items():
    parts = [_theirs(path, np.asarray(flat[path])) for path in paths]
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    shape = _their_shape(reference, name, paths, shapes)
    tensors[name] = np.ascontiguousarray(array.reshape(shape))
  return tensors


def _plan(reference):
  """{tensor name: our paths that are parts of it, in order}."""
  plan, shapes = {}, reference.shapes()
  for path in shapes:
    kernel = shapes.get((*path[:-1], 'kernel'), ())
    plan.setdefault(reference.name(path, len(kernel)), []).append(path)
  # q before k before v, and the mean before the logarithm of the variance.
  order = {'to_q': 0, 'to_k': 1, 'to_v': 2, 'quant_conv_log_sigma': 1}
  return {
    name: sorted(paths, key=lambda path: max(order.get(part, 0) for part in path))
    for name, paths in plan.items()
  }


def _differences(expected, given):
  unknown, missing = (
    sorted(set(given) - set(expected)),
    sorted(set(expected) - set(given)),
  )
  found = [f'unknown: {", ".join(unknown)}'] if unknown else []
  return found + ([f'missing: {", ".join(missing)}'] if missing else [])


def _their_shape(reference, name, paths, shapes):
  """Shape of the reference's tensor: our parts concatenated along the first axis."""
  parts = [
    _theirs(path, np.broadcast_to(np.float32(0), shapes[path])).shape for path in paths
  ]
  shape = (sum(part[0] for part in parts), *parts[0][1:])
  return shape[:2] if reference.matrices(name) else shape


def _their_axis(path, shape):
  return _theirs(path, np.broadcast_to(np.float32(0), shape)).shape[0]


def _theirs(path, array):
  """Ours (*k,c_in,c_out) -> theirs (c_out,c_in,*k); a Deconv's is (c_in,c_out,*k)."""
  if path[-1] != 'kernel':
    return array
  last = (-2, -1) if path[-2] == 'deconv' else (-1, -2)
  return np.moveaxis(array, last, (0, 1))


def _ours(path, array, shape):
  if path[-1] != 'kernel':
    return array
  if array.ndim < len(shape):  # a matrix where ours is a 1x1 convolution
    array = array.reshape(*array.shape, *shape[: len(shape) - 2])
  last = (-2, -1) if path[-2] == 'deconv' else (-1, -2)
  return np.moveaxis(array, (0, 1), last)


def examples(*shapes: Shape) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Abstract float32 inputs of these shapes."""
  return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def read_options(
  config: Mapping[str, Any],
  known: Mapping[str, Any],
  refused: Mapping[str, tuple[tuple, str]],
) -> dict[str, Any]:
  """Checks a reference's config.

  Args:
    config: constructor arguments; keys with a leading underscore are ignored.
    known: {option: default} that the caller supports; `...` for no default.
    refused: {option: (allowed values, reason)} of options with a restricted value.

  Returns:
    {option: value} for all of `known`.

  Raises:
    ValueError: listing options that are unknown, missing or refused, with the reason.
  """
  given = {key: value for key, value in config.items() if not key.startswith('_')}
  problems = [
    f'{key} is not an option of this network'
    for key in sorted(set(given) - set(known) - set(refused))
  ]
  for key, (allowed, reason) in refused.items():
    value = given.get(key, allowed[0])
    value = tuple(value) if isinstance(value, list) else value
    if value not in allowed:
      problems.append(f'{key} = {value!r} is not supported: {reason}')
  missing = [key for key, value in known.items() if value is ... and key not in given]
  problems += [f'{key} is missing' for key in missing]
  if problems:
    raise ValueError('The config cannot be converted: ' + '; '.join(problems) + '.')
  return {**known, **{key: given[key] for key in known if key in given}}
