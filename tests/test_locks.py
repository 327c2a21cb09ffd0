"""Laws of locks: one at a time, who holds it is told, and the dead hold nothing."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from ldm_jax import locks

# Holds a folder until its standard input ends.
HOLD = """
import sys
from ldm_jax import locks
with locks.work_folder(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
  """Starts a process that holds the folder; ends it with the test."""
  started = []

  def start(**environment):
    process = subprocess.Popen(
      [sys.executable, '-c', HOLD, str(tmp_path)],
      env={**os.environ, **environment},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    assert process.stdout.readline() == 'held\n'
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


def rewritten(path, **changes):
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_second_process_is_told_who_works_in_the_folder(tmp_path, hold):
  process = hold()
  with (
    pytest.raises(ValueError, match='Another ldm-jax works in') as told,
    locks.work_folder(tmp_path),
  ):
    pass
  host = json.loads((tmp_path / locks.FILE).read_text())['host']
  for words in (f'process {process.pid} on {host}', '--workdir', f'kill {process.pid}'):
    assert words in str(told.value)
  assert locks.holder(tmp_path)['pid'] == process.pid
  process.communicate('')
  assert not (tmp_path / locks.FILE).exists(), 'who ends takes the lock along'
  with locks.work_folder(tmp_path):
    assert locks.holder(tmp_path) is None, 'it is our own'
  assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, hold, capsys):
  process = hold()
  process.kill()
  # It is not asked how it ended: a parent that never asks leaves its number in use.
  while locks.holder(tmp_path) is not None:
    time.sleep(0.01)
  with locks.work_folder(tmp_path):
    mine = json.loads((tmp_path / locks.FILE).read_text())
    assert mine['pid'] == os.getpid()
  told = capsys.readouterr().err
  assert f'process {process.pid}' in told and 'taken over' in told


def test_another_process_with_the_number_of_the_dead_one_holds_nothing(tmp_path, hold):
  hold()
  rewritten(tmp_path / locks.FILE, pid=os.getpid(), started=1)
  if locks._started(os.getpid()) is None:
    pytest.skip('this system does not say when a process began')
  assert locks.holder(tmp_path) is None


def test_a_lock_of_another_machine_lapses_when_it_is_not_renewed(tmp_path, hold):
  hold()
  path = tmp_path / locks.FILE
  rewritten(path, host='elsewhere')
  with (
    pytest.raises(ValueError, match=r'on elsewhere.*delete.*taken over'),
    locks.work_folder(tmp_path),
  ):
    pass
  old = time.time() - locks.LAPSED_SECONDS - 5
  os.utime(path, (old, old))
  with locks.work_folder(tmp_path):
    pass


def test_a_lock_is_renewed_while_it_is_held(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, 'RENEWED_SECONDS', 0.01)
  with locks.work_folder(tmp_path):
    path = tmp_path / locks.FILE
    os.utime(path, (1, 1))
    end = time.monotonic() + 30
    while path.stat().st_mtime < 2 and time.monotonic() < end:
      time.sleep(0.01)
    assert path.stat().st_mtime > 2


SLURM = {'SLURM_STEP_NUM_TASKS': '2', 'SLURM_JOB_ID': '7', 'SLURM_STEP_ID': '0'}


def test_the_processes_of_one_launch_share_the_folder(tmp_path, hold, monkeypatch):
  hold(**SLURM)
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  with locks.work_folder(tmp_path):
    pass
  assert (tmp_path / locks.FILE).exists(), 'the other still works there'
  monkeypatch.setenv('SLURM_STEP_ID', '1')
  with (
    pytest.raises(ValueError, match='Another ldm-jax'),
    locks.work_folder(tmp_path),
  ):
    pass


def test_a_requeued_job_takes_over_from_the_node_that_it_left(
  tmp_path, hold, monkeypatch
):
  hold(SLURM_JOB_ID='7')
  rewritten(tmp_path / locks.FILE, host='elsewhere')
  monkeypatch.setenv('SLURM_JOB_ID', '7')
  monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
  with locks.work_folder(tmp_path):
    pass


def test_whoever_has_the_folder_enters_again(tmp_path):
  with locks.work_folder(tmp_path):
    with locks.work_folder(tmp_path):
      pass
    assert (tmp_path / locks.FILE).exists()


def test_one_at_a_time_is_in_an_exclusive_block(tmp_path):
  inside, most = [], []

  def enter():
    with locks.exclusive(tmp_path / 'lock'):
      inside.append(1)
      most.append(len(inside))
      time.sleep(0.02)
      inside.pop()

  threads = [threading.Thread(target=enter) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1, 1, 1, 1]


class Windows:
  """As msvcrt locks: a byte of the file, refused while another has it."""

  LK_NBLCK, LK_UNLCK = 2, 0

  def __init__(self):
    self.calls, self.is_busy = [], True

  def locking(self, descriptor, mode, num_bytes):
    self.calls.append((mode, num_bytes))
    if mode == self.LK_NBLCK and self.is_busy:
      self.is_busy = False
      raise PermissionError(13, 'Permission denied')


def test_windows_locks_with_its_own_module(tmp_path, monkeypatch):
  windows = Windows()
  monkeypatch.setattr(locks, 'fcntl', None)
  monkeypatch.setattr(locks, 'msvcrt', windows)
  with locks.exclusive(tmp_path / 'lock'):
    assert windows.calls == [(2, 1), (2, 1)], 'it waits until the other is done'
  assert windows.calls[-1] == (0, 1)


def test_without_locks_of_the_system_a_sentence_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, 'fcntl', None)
  monkeypatch.setattr(locks, 'msvcrt', None)
  with (
    pytest.raises(ValueError, match=r'cannot be locked.*ledger\.path'),
    locks.exclusive(tmp_path / 'lock'),
  ):
    pass
