"""The platform that a program is traced for: 'cpu', 'gpu' or 'tpu'.

Lowerings and limits of memory are chosen while a function is traced. Usually it runs on
this machine; a step that is compiled ahead of time for other devices says for which.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'platform', default=None
)


def name() -> str:
  """The platform of the program that is being traced; jax's default outside of one."""
  return _platform.get() or jax.default_backend()


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
  """Within the block functions are traced for this platform."""
  token = _platform.set(platform)
  try:
    yield
  finally:
    _platform.reset(token)


def of_mesh(
  mesh: jax.sharding.Mesh, function: Callable[..., Any]
) -> Callable[..., Any]:
  """The function, traced for the mesh's devices; an outer `tracing_for` decides."""

  @functools.wraps(function)
  def traced(*arguments):
    chosen = _platform.get() or mesh.devices.flat[0].platform
    with tracing_for(chosen):
      return function(*arguments)

  return traced
