"""Makes batches in background threads while earlier steps compute."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

# Two, so that a batch that waits for the disk does not delay the next.
NUM_THREADS = 2


class Prefetcher:
  """`make(step)` for step, step + 1, ..., the next ones in threads of their own.

  `make` must depend on the step alone (`batching.epoch_batch` does); then a batch does
  not depend on timing, and a resumed run may begin anywhere. An error of `make` is
  raised by the step that uses its batch. Use it in a `with` block, whose end drops
  batches that were not used.
  """

  def __init__(self, make: Callable[[int], Any], num_steps: int, depth: int = 3):
    """Starts nothing yet.

    Args:
      make: step -> batch.
      num_steps: nothing is made for later steps.
      depth: number of batches made in advance.
    """
    self._make, self._num_steps, self._depth = make, num_steps, depth
    self._pool = concurrent.futures.ThreadPoolExecutor(NUM_THREADS, 'ahead')
    self._waiting: dict[int, concurrent.futures.Future] = {}

  def __call__(self, step: int) -> Any:
    """The batch of a step."""
    for other in [other for other in self._waiting if other < step]:
      self._waiting.pop(other).cancel()
    last = max(step, min(step + self._depth, self._num_steps - 1))
    for number in range(step, last + 1):
      if number not in self._waiting:
        self._waiting[number] = self._pool.submit(self._make, number)
    return self._waiting.pop(step).result()

  def __enter__(self) -> Prefetcher:
    return self

  def __exit__(self, *error) -> None:
    self._pool.shutdown(cancel_futures=True)
