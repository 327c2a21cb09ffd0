"""What ends a process of a run when another one is gone or has failed."""

import json
import pathlib
import subprocess
import sys

import pytest

from ldm_jax import process_watch, processes

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Client:
  """Stands for jax's store of texts."""

  def __init__(self):
    self.texts = {}

  def key_value_set(self, name, text, allow_overwrite=False):
    assert allow_overwrite or name not in self.texts
    self.texts[name] = text

  def key_value_dir_get(self, name):
    return [item for item in self.texts.items() if item[0].startswith(name)]


class Ended(Exception):
  """Instead of the end of the process."""


@pytest.fixture
def watch(monkeypatch):
  """A watch of process 0 of three, whose `end` raises."""

  def end(told, status):
    raise Ended(told, status)

  monkeypatch.setattr(process_watch, 'end', end)
  monkeypatch.setattr(processes, 'number', lambda: 0)
  return process_watch.Watch(Client(), ['a', 'b', 'c'], None)


def seconds(watch, count, beats, ended=None):
  for _ in range(count):
    watch._second += 1
    watch._hear(ended or {})
    watch._look(beats(watch._second))


def test_processes_that_show_themselves_are_left_alone(watch):
  seconds(watch, 200, lambda now: dict.fromkeys('012', str(now // 5)))


def test_a_process_that_is_silent_is_named_and_ends_the_others_within_a_minute(watch):
  alive = lambda now: {'0': str(now), '1': str(now), '2': str(min(now, 10))}
  with pytest.raises(Ended) as ended:
    seconds(watch, 70, alive)
  told, status = ended.value.args
  assert told.startswith('process 2 on c') and status == process_watch.LOST


def test_after_a_failed_computation_a_silent_process_is_named_sooner(watch):
  watch._leaving.set()  # waits for nothing
  watch.wait_for_reason()
  alive = lambda now: {'0': str(now), '1': str(min(now, 3)), '2': str(now)}
  with pytest.raises(Ended, match='process 1 on b has not been heard of for 12'):
    seconds(watch, 20, alive)


def test_a_process_that_never_came_is_lost_too(watch):
  with pytest.raises(Ended, match='process 1 on b'):
    seconds(watch, 60, lambda now: {'0': str(now), '2': str(now)})


def test_a_failure_of_another_process_is_told_with_its_words_and_status(watch):
  beats = lambda now: dict.fromkeys('012', str(now))
  failed = {'1': json.dumps({'status': 2, 'told': 'a wrong key.'})}
  with pytest.raises(Ended) as ended:
    seconds(watch, 20, beats, failed)
  assert ended.value.args == ('process 1 on b has stopped: a wrong key', 2)
  # The one that failed last holds the store until all have heard.
  assert f'{processes.PREFIX}/heard/0' in watch._client.texts


def test_what_is_told_is_read_by_the_number_of_its_process(watch):
  watch._put('ended', 'x')
  assert watch._read('ended') == {'0': 'x'} and watch._read('beat') == {}


ABORT = """
import ctypes, sys
from ldm_jax import process_watch
process_watch.native_messages_to_file()
process_watch.on_abort('the first one is gone', 75)
ctypes.CDLL(None).perror(b'a trace of C++')
print('of Python', file=sys.stderr)
ctypes.CDLL(None).abort()
"""


def test_an_abort_of_native_code_ends_with_one_sentence():
  done = subprocess.run(
    [sys.executable, '-c', ABORT], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 75
  lines = list(filter(None, done.stderr.splitlines()))
  assert lines == ['of Python', 'ldm-jax: the first one is gone.']


LEAVES = """
import ctypes
from ldm_jax import process_watch

class Lost:
  def key_value_set(self, name, text, allow_overwrite):
    ctypes.CDLL(None).abort()

watch = process_watch.Watch(Lost(), ['a', 'b'], None)
process_watch.on_abort(watch.told_of_first(), process_watch.LOST)
watch.leave(2, 'a wrong key')
"""


def test_who_has_told_its_error_keeps_its_status_where_the_first_process_ends_before():
  done = subprocess.run(
    [sys.executable, '-c', LEAVES], cwd=ROOT, capture_output=True, text=True
  )
  assert (done.returncode, done.stderr) == (2, '')
