"""Programs that run once or a few times: compiled quickly, not well.

Of a network's initial values, or of a gradient taken three times, XLA's compilation is
nearly all the time. Without its optimisations a CPU's takes a fifth of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_cpu_use_fusion_emitters': False,
  'xla_cpu_parallel_codegen_split_count': 2,
}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
  """jax.jit for a function that runs a few times; within another jit it is inlined."""
  program = jax.jit(function, compiler_options=options(jax.default_backend()))

  def call(*arguments):
    # Options are those of a whole program.
    leaves = jax.tree.leaves(arguments)
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    return (function if is_traced else program)(*arguments)

  return call


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
