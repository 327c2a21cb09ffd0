"""The processes of one run: what one of them tells all, and whose turn it is to write.

All processes run the same stages in the same order. The first one alone writes tables,
logs, marks, ledger and statement; `atomic` asks `writes` here, so that nothing written
by the others reaches the work folder by mistake. What decides the course of a run is
found out by the first one and told to the others (`first`, `agreed`), who never look at
a file that may be half there on their host.

With one process, and within `alone`, everything here is done at once and by itself.
`cluster` joins the processes; the messages go through the store of jax's coordinator.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ldm_jax.interruption import Interrupted

PREFIX = 'ldm_jax'


class Store(Protocol):
  """Texts by name that all processes see, as jax's coordinator keeps them."""

  def put(self, name: str, text: str) -> None:
    """Puts a text under a name that has none."""

  def take(self, name: str) -> str:
    """Waits until the name has a text, however long, and returns it."""


class ToldError(Exception):
  """What ended the work of another process, which has told its user.

  Attributes:
    status: exit status of that process.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


class _Group:
  """This process among the others; one for a run."""

  def __init__(self, number: int, count: int, store: Store | None):
    self.number, self.count, self.store = number, count, store
    self.messages = 0  # sent or heard so far: names the next one
    self.is_alone, self.all_write = False, False


_group = _Group(0, 1, None)


def join(number: int, count: int, store: Store) -> None:
  """Makes this process one of several; called once, by `cluster.join`."""
  global _group
  _group = _Group(number, count, store)


def count() -> int:
  """How many processes share the work at this place of the program."""
  return 1 if _group.is_alone else _group.count


def total() -> int:
  """How many processes the run has."""
  return _group.count


def number() -> int:
  """The number of this process, from 0."""
  return _group.number


def is_first() -> bool:
  """Whether this process speaks and writes for all."""
  return _group.number == 0


def writes() -> bool:
  """Whether what this process writes goes to the disk."""
  return is_first() or _group.all_write


@contextlib.contextmanager
def all_writing() -> Iterator[None]:
  """Within the block every process writes: files of its own share of the work."""
  before, _group.all_write = _group.all_write, True
  try:
    yield
  finally:
    _group.all_write = before


@contextlib.contextmanager
def alone() -> Iterator[None]:
  """Within the block this process works as if there were no other."""
  before, _group.is_alone = _group.is_alone, True
  try:
    yield
  finally:
    _group.is_alone = before


def share(items: Sequence[Any]) -> list[Any]:
  """The items that are this process's part of a list of work."""
  return list(items[number() :: count()] if count() > 1 else items)


def has(number_of_item: int) -> bool:
  """Whether an item of a list of work is in this process's share."""
  return number_of_item % count() == (number() if count() > 1 else 0)


def agreed(value: Any) -> Any:
  """The first process's value, in all of them; JSON-able."""
  if count() == 1:
    return value
  name = _next_name()
  if is_first():
    _put(name, json.dumps(value))
    return value
  return json.loads(_take(name))


def gathered(value: Any) -> list[Any]:
  """The values of all processes, in the order of their numbers; JSON-able."""
  if count() == 1:
    return [value]
  name = _next_name()
  _put(f'{name}/{number()}', json.dumps(value))
  return [json.loads(_take(f'{name}/{each}')) for each in range(count())]


def barrier() -> None:
  """Waits until all processes are here."""
  gathered(None)


def first(function: Callable[[], Any]) -> Any:
  """Calls a function in the first process alone; all return what it returned.

  The others wait until it has ended, so that they find on the disk what it wrote.

  Args:
    function: () -> JSON-able value. It works as if there were no other process.

  Raises:
    ToldError: in the others, where the function failed in the first.
    Interrupted: likewise, where a signal ended it.
  """
  if count() == 1:
    return function()
  name = _next_name()
  if is_first():
    try:
      with alone():
        value = function()
    except BaseException as error:
      _put(name, json.dumps(_failure(error)))
      raise
    _put(name, json.dumps({'value': value}))
    return value
  told = json.loads(_take(name))
  if 'value' in told:
    return told['value']
  if told['signal']:
    raise Interrupted(told['signal'], told['text'])
  raise ToldError(told['text'], told['status'])


def status_of(error: BaseException) -> int:
  """The exit status of a command that this error ends."""
  if isinstance(error, ToldError):
    return error.status
  if isinstance(error, KeyboardInterrupt):
    return 128 + getattr(error, 'number', signal.SIGINT)
  return 2 if isinstance(error, ValueError) else 1


def _failure(error):
  is_signal = isinstance(error, KeyboardInterrupt)
  return {
    'text': str(error) or type(error).__name__,
    'status': status_of(error),
    'signal': getattr(error, 'number', signal.SIGINT) if is_signal else 0,
  }


def _next_name():
  _group.messages += 1
  return f'{PREFIX}/message/{_group.messages}'


def _put(name, text):
  if _group.store is not None:
    _group.store.put(name, text)


def _take(name):
  if _group.store is None:
    raise RuntimeError(f'no other process can have sent {name}')
  return _group.store.take(name)
