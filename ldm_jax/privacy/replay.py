"""The memory of correlated noise between the steps of a run; no file ever holds it."""

from collections.abc import Callable

import jax
import numpy as np

from ldm_jax.types import Array


class Replay:
  """Keeps the noise memory of a run between steps, and recomputes it if missing.

  The memory is secret and is never written to a file.
  """

  def __init__(self) -> None:
    # (step, bits of the key, memory before that step).
    self._known: tuple[int, bytes, Array] | None = None

  def __repr__(self):
    return 'Replay(secret)'

  def before(
    self,
    step: int,
    key: jax.Array,
    start: Callable[[], Array],
    again: Callable[[Array, int], Array],
  ) -> Array:
    """Returns the memory before a step and releases it; hand the next one to `keep`.

    Args:
      step: int.
      key: the run's noise key; the memory of another key is not used.
      start: () -> memory before step 0.
      again: (memory, step) -> memory after that step. It must run the same compiled
        program that adds the noise in training, because rounding may differ otherwise.
    """
    known, self._known = self._known, None
    done, memory = 0, None
    if known is not None and known[1] == _bits(key) and known[0] <= step:
      done, _, memory = known
    memory = start() if memory is None else memory
    for earlier in range(done, step):
      memory = again(memory, earlier)
    return memory

  def keep(self, step: int, key: jax.Array, memory: Array) -> None:
    """Keeps the memory as it is before `step`."""
    self._known = step, _bits(key), memory


def _bits(key):
  return np.asarray(jax.random.key_data(key)).tobytes()
