"""Floating-point operations of a traced function: products of matrices, convolutions.

XLA's own count of a compiled program takes a loop's body once, however often it runs; a
private step is a loop over patients. A jaxpr knows how long its loops are. Inside
`shard_map` shapes are those of one device, so what is counted is one device's work;
outside, each device is taken to do all of it.
"""

import math
from collections.abc import Iterator
from typing import Any


def operations(jaxpr: Any) -> float:
  """Multiplications and additions of dot_general and convolutions of a jaxpr.

  A branch of `cond` that does most counts, a `while` of unknown length as one pass.

  Args:
    jaxpr: closed or not, such as `jax.jit(f).trace(...).jaxpr`.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation):
  kind, params = equation.primitive.name, equation.params
  if kind == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return 2.0 * _size(equation) * math.prod(shape[axis] for axis in contracted)
  if kind == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    numbers = params['dimension_numbers'].rhs_spec
    taps = math.prod(kernel[axis] for axis in numbers[1:])
    return 2.0 * _size(equation) * taps
  if kind == 'cond':
    return max(map(operations, params['branches']))
  passes = params['length'] if kind == 'scan' else 1
  return passes * sum(map(operations, _inner(params)))


def _size(equation):
  return math.prod(equation.outvars[0].aval.shape)


def _inner(params) -> Iterator[Any]:
  """The jaxprs that an equation calls."""
  for value in params.values():
    for each in value if isinstance(value, tuple | list) else (value,):
      if hasattr(each, 'eqns') or hasattr(getattr(each, 'jaxpr', None), 'eqns'):
        yield each
