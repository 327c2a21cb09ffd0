"""Programs that run once or a few times: compiled quickly, not well.

Of a network's initial values, or of a gradient taken three times, XLA's compilation is
nearly all the time. Without its optimisations a CPU's takes a fifth of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_cpu_use_fusion_emitters': False,
  'xla_cpu_parallel_codegen_split_count': 2,
}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
  """jax.jit for a function that runs a few times; within another jit it is inlined.

  Arrays of the function's closure that may belong to another jit must be arguments.
  """
  programs: dict[Any, Callable[..., Any]] = {}

  def call(*arguments):
    leaves, structure = jax.tree.flatten(arguments)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
      return function(*arguments)
    # Ahead of time, since jax gives options to whole programs alone. Such a program
    # takes arrays of its own devices only.
    kinds = structure, *map(_kind, leaves)
    if kinds not in programs:
      lowered = jax.jit(function).lower(*arguments)
      programs[kinds] = lowered.compile(options(jax.default_backend()))
    return programs[kinds](*arguments)

  return call


def _kind(leaf):
  return jnp.shape(leaf), jnp.result_type(leaf), getattr(leaf, 'sharding', None)


@functools.cache
def options(backend: str) -> dict[str, Any] | None:
  """QUICK on a CPU whose jaxlib knows these options, else None."""
  if backend != 'cpu':
    return None
  try:
    jax.jit(lambda x: x, compiler_options=QUICK).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return None
  return QUICK
