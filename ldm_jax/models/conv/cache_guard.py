"""Keeps programs that call oneDNN out of jax's persistent cache of compiled programs.

XLA cannot serialise them. `OneDnnOpThunk` and `CustomCallThunk` have the same `kind()`,
so that `CustomCallThunkToProto` reads the one as the other, whose fields lie elsewhere
in memory: the process ends, or an allocation of a random size fails. [XLA] openxla/xla,
xla/backends/cpu/runtime/onednn/onednn_op_thunk.cc and thunk_serdes/.

jax offers no way to except one program (programs that call back to Python are excepted
by jax 0.10, not by 0.11), so the one function that serialises for the cache is wrapped.
It is private. Where it is another than known, nothing is wrapped and oneDNN not called.
"""

import functools
import inspect
from typing import Any

# What starts the name of each of oneDNN's custom calls.
PREFIX = '__onednn$'
PARAMETERS = ('cache_key', 'module_name', 'executable', 'backend', 'compile_time')


@functools.cache
def install() -> bool:
  """Excepts programs with the call from the cache of this process, once and for all.

  Returns:
    Whether they are. If not, jax is another than known, and nothing was changed.
  """
  try:
    from jax._src import compilation_cache, compiler

    write = compilation_cache.put_executable_and_time
    # The name is looked up in the module at each call, so that a wrapper is met.
    met = compiler.compilation_cache is compilation_cache
    names = compiler._cache_write.__code__.co_names
    known = met and {'compilation_cache', 'put_executable_and_time'} <= set(names)
    known = known and tuple(inspect.signature(write).parameters) == PARAMETERS
  except (ImportError, AttributeError, TypeError, ValueError):
    return False
  if not known:
    return False

  @functools.wraps(write)
  def write_others(cache_key, module_name, executable, backend, compile_time):
    if not holds_call(executable):
      write(cache_key, module_name, executable, backend, compile_time)

  compilation_cache.put_executable_and_time = write_others
  return True


def holds_call(executable: Any) -> bool:
  """Whether a compiled program calls oneDNN; yes, too, where that cannot be told."""
  try:
    texts = [module.to_string() for module in executable.hlo_modules()]
  except Exception:  # whatever it is: a program that is not stored costs time only
    return True
  return not texts or any(PREFIX in text for text in texts)
