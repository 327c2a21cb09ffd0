"""Watches over the processes of a run, and ends this one where another one is gone.

Each process shows every second that it is there, in the store of jax's coordinator.
Where one is not heard of for `LOST_SECONDS`, or says that it has failed, the others end
with one sentence, without waiting for what they were computing together; after
`SUSPECT_SECONDS` where that computation has failed already. Where process 0 is gone,
which holds the store, jax's C++ aborts the others: `on_abort` says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
from typing import Any, NoReturn

from ldm_jax import locks, processes

LOST_SECONDS = 50
SUSPECT_SECONDS = 12
GRACE_SECONDS = 4  # in which a process may tell by itself why it ends
# Exit status where another process was lost, or did not come: the same command goes on.
LOST = 75


class Watch(threading.Thread):
  """Shows that this process is there, and ends it where another one is not.

  Time is counted in the watch's own seconds: where all processes were stopped for a
  while, as a debugger or a suspended machine does, none is taken for lost.
  """

  def __init__(self, client: Any, hosts: list[str], log: pathlib.Path | None):
    super().__init__(daemon=True)
    self._client, self._hosts, self._log = client, hosts, log
    self._number = processes.number()
    self._found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    self._beats: dict[int, tuple[str, int]] = {}
    self._second, self._contact, self._failing = 0, 0, 0
    self._leaving, self._suspecting = threading.Event(), False

  def told_of_first(self) -> str:
    """What is to be said where the first process is gone."""
    return (
      f'process 0 on {self._hosts[0]}, which the others depend on, is gone; the same '
      'command goes on from the last checkpoint'
    )

  def run(self) -> None:
    """Looks once a second."""
    # A call to a host that is gone may never return, so it has a thread of its own.
    threading.Thread(target=self._exchange, daemon=True).start()
    while not self._leaving.wait(1.0):
      self._second += 1
      if self._second - self._contact > self._patience():
        end(self.told_of_first(), LOST)
      beats, ended = self._found
      self._hear(ended)
      self._look(beats)

  def _exchange(self):
    """Shows this process's beat and reads those of the others, again and again."""
    while not self._leaving.wait(1.0):
      with contextlib.suppress(Exception):
        self._put('beat', str(self._second))
        self._found = self._read('beat'), self._read('ended')
        self._contact = self._second

  def _hear(self, ended):
    """Ends this process where another one has said that it failed."""
    for name, text in ended.items():
      number, what = int(name), json.loads(text)
      if number == self._number or not what['status'] or self._leaving.is_set():
        continue
      self._failing = self._failing or self._second
      if self._second - self._failing > GRACE_SECONDS:
        with contextlib.suppress(Exception):
          self._put('heard')
        told = what['told'].rstrip('.')
        end(
          f'process {number} on {self._hosts[number]} has stopped: {told}',
          what['status'],
        )

  def _look(self, beats):
    for number, host in enumerate(self._hosts):
      beat = beats.get(str(number), '')
      if number not in self._beats or self._beats[number][0] != beat:
        self._beats[number] = (beat, self._second)
      elif self._second - self._beats[number][1] > self._patience():
        end(
          f'process {number} on {host} has not been heard of for {self._patience()} '
          'seconds; the same command goes on from the last checkpoint',
          LOST,
        )

  def _patience(self):
    return SUSPECT_SECONDS if self._suspecting else LOST_SECONDS

  def wait_for_reason(self) -> None:
    """Waits as long as it may take to know whether another process is gone.

    Called when a computation of all processes or the store has failed here.
    """
    self._suspecting = True
    if not self._leaving.is_set():
      self.join(LOST_SECONDS + 2 * GRACE_SECONDS)

  def leave(self, status: int, told: str) -> None:
    """As `cluster.leave`."""
    import jax

    sys.stdout.flush()
    if status == 0:
      processes.barrier()
      self._leaving.set()
      with contextlib.suppress(Exception):
        on_abort('', 0)
        jax.distributed.shutdown()
    else:
      self._leaving.set()
      on_abort('', status)  # the first process may end before this one has
      with contextlib.suppress(Exception):
        self._put('ended', json.dumps({'status': status, 'told': told}))
        self._put('heard')
        self._wait_until_heard()
      locks.abandon()
    if self._log is not None:
      self._log.unlink(missing_ok=True)
    sys.stderr.flush()
    os._exit(status)

  def _put(self, kind, text='1'):
    name = f'{processes.PREFIX}/{kind}/{self._number}'
    self._client.key_value_set(name, text, allow_overwrite=True)

  def _read(self, kind):
    """{number of the process: text} of what all have put."""
    found = self._client.key_value_dir_get(f'{processes.PREFIX}/{kind}/')
    return {name.rpartition('/')[2]: text for name, text in found}

  def _wait_until_heard(self):
    """The first process holds the store: it goes last, or after some seconds."""
    end = time.monotonic() + 3 * GRACE_SECONDS
    while time.monotonic() < end:
      if len(self._read('heard')) >= len(self._hosts):
        time.sleep(0.5)  # what is on its way arrives
        return
      time.sleep(0.2)


_ending = threading.Lock()
_kept: list[Any] = []  # callbacks that C code has been given


def end(told: str, status: int) -> NoReturn:
  """Ends the process with one sentence, whatever its other threads do."""
  if not _ending.acquire(blocking=False):
    time.sleep(60)  # another thread is ending the process
  with contextlib.suppress(Exception):
    locks.abandon()
  if told:
    with contextlib.suppress(OSError, ValueError):
      os.write(sys.stderr.fileno(), f'\nldm-jax: {told}.\n'.encode())
  os._exit(status)


def on_abort(told: str, status: int) -> None:
  """Where jax's C++ aborts the process, because another one is gone, `end` it."""
  if os.name != 'posix':
    return

  @ctypes.CFUNCTYPE(None, ctypes.c_int)
  def handler(number):
    end(told, status)

  _kept.append(handler)
  ctypes.CDLL(None).signal(signal.SIGABRT, handler)


def native_messages_to_file() -> pathlib.Path | None:
  """Sends what native code writes to stderr into a file; Python keeps the terminal.

  gRPC and gloo tell a lost connection in dozens of lines. The file is removed when the
  run has ended by itself.
  """
  try:
    terminal = os.dup(sys.stderr.fileno())
    handle, name = tempfile.mkstemp(prefix='ldm-jax-native-', suffix='.log')
  except (OSError, ValueError, AttributeError):
    return None
  sys.stderr.flush()
  sys.stderr = os.fdopen(terminal, 'w', buffering=1, errors='backslashreplace')
  os.dup2(handle, 2)
  os.close(handle)
  return pathlib.Path(name)
