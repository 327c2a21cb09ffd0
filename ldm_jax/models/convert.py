"""Weights of reference networks in our modules and back, every tensor bit for bit.

A reference (`reference_monai`, `reference_diffusers`) gives two things: from a config
our module, and `name(path, kernel_axes)`, its name of the tensor that is one of our
parameters. What is needed and in which shape then follows from our module alone: no
list of tensors is kept, and none that came is left over. Several of our parameters may
share one tensor, one after the other along its first axis.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


@dataclasses.dataclass(frozen=True)
class Reference:
  """How a reference network corresponds to one of our modules.

  Attributes:
    module: ours.
    inputs: of shapes that initialise it.
    name: (path (str, ...), number of axes of the kernel beside it) -> tensor name.
    matrices: tensor names whose 1x1 convolution the reference keeps as a matrix.
  """

  module: nn.Module
  inputs: tuple
  name: Callable
  matrices: Callable = lambda name: False

  def shapes(self):
    """{path: shape} of our parameters; nothing is computed."""
    return self._shapes

  @functools.cached_property
  def _shapes(self):
    variables = jax.eval_shape(self.module.init, jax.random.key(0), *self.inputs)
    flat = flatten_dict(variables['params'])
    return {path: leaf.shape for path, leaf in flat.items()}


def to_ours(reference, tensors):
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
        f'{name} has the shape {tuple(tensors[name].shape)}, {expected} is required'
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


def to_theirs(reference, params):
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
    f'{"/".join(path)} has the shape {np.shape(flat[path])}, {shape} is required'
    for path, shape in shapes.items()
    if path in flat and np.shape(flat[path]) != shape
  ]
  if problems:
    raise ValueError(
      'These parameters do not belong to this config: ' + '; '.join(problems) + '.'
    )
  tensors = {}
  for name, paths in plan.items():
    parts = [_theirs(path, np.asarray(flat[path])) for path in paths]
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    shape = _their_shape(reference, name, paths, shapes)
    tensors[name] = np.ascontiguousarray(array.reshape(shape))
  return tensors


def _plan(reference):
  """{tensor name: our paths that share it, in order}."""
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
  """Shape of the reference's tensor, all our parts joined along the first axis."""
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


def examples(*shapes):
  """Abstract float32 inputs of these shapes."""
  return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def read_options(config, known, refused):
  """Checks a reference's config.

  Args:
    config: dict of constructor arguments; keys with a leading underscore are notes.
    known: {option: default} that the caller understands.
    refused: {option: (allowed values, reason)} of options that must keep a value.

  Returns:
    {option: value} for all of `known`.

  Raises:
    ValueError: listing options that are unknown or refused, with the reason.
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
