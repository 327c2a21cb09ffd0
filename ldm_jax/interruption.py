"""SIGTERM and Ctrl-C: what is open is closed, and training saves its state first.

Slurm, Docker and Kubernetes send SIGTERM some seconds before they kill, a terminal
sends SIGINT. Both end a command by `Interrupted`, and a training loop answers them
after the step that it is in, with a checkpoint.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Slurm sends SIGTERM to all processes of a job, among them the script, which hands it
# on: within these seconds it counts once.
TOGETHER_SECONDS = 2.0


class Interrupted(KeyboardInterrupt):
  """A signal asked the process to end.

  Attributes:
    number: of the signal; the exit status of the command is 128 + number.
  """

  def __init__(self, number: int, message: str = ''):
    super().__init__(message or f'Interrupted by {signal.Signals(number).name}')
    self.number = int(number)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
  """Within the block SIGTERM raises `Interrupted`, as Ctrl-C raises its exception.

  Without it Python ends at once: locks stay, and nothing is said.
  """

  came: list[float] = []

  def stop(number, frame):
    if not _is_same(came):
      raise Interrupted(number)

  with _handling((signal.SIGTERM,), stop):
    yield


@contextlib.contextmanager
def after_step(title: str) -> Iterator[Callable[[], int]]:
  """Within the block a first signal waits for the loop, a second one ends it at once.

  A loop that ends without answering is interrupted where the block ends.

  Args:
    title: of what is trained, for the message.

  Yields:
    () -> number of the signal that came, 0 if none did.
  """
  came: list[int] = []
  terminated: list[float] = []

  def note(number, frame):
    if number == signal.SIGTERM and _is_same(terminated):
      return
    if came:
      raise Interrupted(number, f'{title}: interrupted without waiting for the step')
    came.append(number)
    name = signal.Signals(number).name
    text = f'\n{title}: {name}: this step is finished and saved, then the run stops.'
    # No print: the signal may have come in the middle of one.
    with contextlib.suppress(OSError):
      os.write(_terminal(), f'{text} Once more stops at once.\n'.encode())

  with _handling(SIGNALS, note):
    yield lambda: came[0] if came else 0
  if came:
    raise Interrupted(came[0])


def _terminal():
  """Where stderr goes: not 2, which native code has to itself in several processes."""
  try:
    return sys.stderr.fileno()
  except (OSError, ValueError, AttributeError):  # a notebook's, or none
    return 2


def _is_same(times):
  """Whether a signal that comes now is one that came before; notes when it came."""
  times.append(time.monotonic())
  return len(times) > 1 and times[-1] - times[0] < TOGETHER_SECONDS


@contextlib.contextmanager
def _handling(numbers, handler):
  """Sets handlers of signals; only the main thread may, in others it does nothing."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield
  finally:
    for number, old in before.items():
      # None: a handler that Python did not install, and cannot put back.
      signal.signal(number, signal.SIG_DFL if old is None else old)
