"""Locks: one process at a time in a critical section, one command in a work folder.

`exclusive` waits for its turn, by the system's own file locks. `work_folder` refuses:
it writes FILE, which says who works there, and removes it at the end. A process that
was killed leaves it behind; it is taken over when that process is gone, which is known
on the same machine, and elsewhere follows from a file that is no longer renewed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ldm_jax import processes


def _module(name: str) -> Any:
  """A module that not every system has, or None."""
  try:
    return importlib.import_module(name)
  except ImportError:
    return None


fcntl, msvcrt = _module('fcntl'), _module('msvcrt')  # the second one is of Windows
FILE = 'running.json'
# A file that was not renewed for so long belongs to nobody, if its process is on
# another machine.
RENEWED_SECONDS, LAPSED_SECONDS, WAIT_SECONDS = 20.0, 180.0, 5.0
# What tells the processes that one launcher started as one run from others.
LAUNCHES = (
  ('SLURM_STEP_NUM_TASKS', ('SLURM_JOB_ID', 'SLURM_STEP_ID')),
  ('OMPI_COMM_WORLD_SIZE', ('PMIX_NAMESPACE', 'OMPI_MCA_ess_base_jobid')),
  ('WORLD_SIZE', ('TORCHELASTIC_RUN_ID', 'MASTER_ADDR', 'MASTER_PORT')),
  ('JAX_NUM_PROCESSES', ('JAX_COORDINATOR_ADDRESS',)),
)
_held: dict[tuple[int, pathlib.Path], int] = {}
_mine: dict[pathlib.Path, dict[str, Any]] = {}  # what this process wrote there


@contextlib.contextmanager
def exclusive(path: str | os.PathLike) -> Iterator[None]:
  """Waits until no other process is in a block with the same file, then enters.

  Args:
    path: of a file that serves as lock and is created.

  Raises:
    ValueError: this system, or the file system of the path, has no file locks.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w') as file:
    _wait(file, path)
    try:
      yield
    finally:
      if fcntl is None and msvcrt is not None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


def _wait(file, path):
  try:
    if fcntl is not None:
      fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
      return
    while msvcrt is not None:
      file.seek(0)
      with contextlib.suppress(PermissionError):  # another process has it
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        return
      time.sleep(0.1)
    reason = 'this Python has neither fcntl nor msvcrt'
  except OSError as error:
    reason = error.strerror
  raise ValueError(
    f'{path} cannot be locked ({reason}), so two runs could spend the same budget '
    'unseen; expected a file system with locks. Put this file on a local disk or on '
    'NFS (the ledger by --config.ledger.path=...).'
  )


@contextlib.contextmanager
def work_folder(root: str | os.PathLike) -> Iterator[None]:
  """Keeps the folder to this process; other processes are refused meanwhile.

  A process that has the folder may enter again, and so may the processes that a
  launcher (srun, mpirun) started as one run: the first of them has it for all.

  Args:
    root: of the work folder, which exists.

  Raises:
    ValueError: another process has it; the message names its host and number.
  """
  if not processes.is_first():
    yield
    return
  root = pathlib.Path(root).resolve()
  key, path = (os.getpid(), root), root / FILE
  mine = None if _held.get(key) else _take(path)
  _held[key] = _held.get(key, 0) + 1
  if mine:
    _mine[path] = mine
  end = threading.Event()
  if mine:
    renewing = threading.Thread(target=_renew, args=(path, mine, end), daemon=True)
    renewing.start()
  try:
    yield
  finally:
    end.set()
    _held[key] -= 1
    if mine and (_read(path) or {}).get('token') == mine['token']:
      path.unlink(missing_ok=True)
    if mine:
      _mine.pop(path, None)


def abandon() -> None:
  """Removes the files of this process, which ends at once."""
  for path, mine in list(_mine.items()):
    if (_read(path) or {}).get('token') == mine['token']:
      path.unlink(missing_ok=True)


def holder(root: str | os.PathLike) -> dict[str, Any] | None:
  """Who works in the folder: 'host', 'pid' and more, or None if nobody else does."""
  root = pathlib.Path(root).resolve()
  if _held.get((os.getpid(), root)):
    return None
  path = root / FILE
  found = _read(path)
  return found if found is not None and _is_running(found, path) else None


def _take(path):
  """Writes the file; returns what it says, None where this run has it already."""
  mine, waited = _myself(), 0.0
  text = json.dumps(mine, indent=1) + '\n'
  while True:
    try:
      with open(path, 'x', encoding='utf-8') as file:
        file.write(text)
      return mine
    except FileExistsError:
      other = _read(path)
    except OSError as error:
      raise ValueError(
        f'{path} cannot be written ({error.strerror}); choose a writable --workdir.'
      ) from error
    if other is None:
      continue  # it is gone just now
    if other.get('launch') and other['launch'] == mine['launch']:
      return None
    if _is_running(other, path) and not _is_requeued(other, mine):
      # Several processes may be started again on other hosts before the file lapses.
      may_lapse = processes.total() > 1 and not _same_machine(other)
      if not may_lapse or waited > 1.5 * LAPSED_SECONDS:
        raise ValueError(_told(path, other))
      if not waited:
        print(f'waiting for {path}, of a process on {other.get("host")}', flush=True)
      time.sleep(WAIT_SECONDS)
      waited += WAIT_SECONDS
      continue
    _remove(path, other)
    print(
      f'{path.parent} was left locked by process {other.get("pid", "?")} on '
      f'{other.get("host", "?")}, which is gone: taken over.',
      file=sys.stderr,
    )


def _told(path, other):
  since = time.strftime('%Y-%m-%d %H:%M', time.localtime(other.get('since', 0)))
  here = _same_machine(other)
  lapse = (
    ''
    if here and os.name != 'nt'
    else f' (after {LAPSED_SECONDS / 60:g} minutes it is taken over)'
  )
  return (
    f'Another ldm-jax works in {path.parent}: process {other.get("pid", "?")} on '
    f'{other.get("host", "?")}, since {since} ({other.get("command", "")}). Two at '
    'once would overwrite each other. Wait until it ends, stop it '
    f'({"kill" if here else "there: kill"} {other.get("pid", "?")}), or choose another '
    f'--workdir. If there is no such process any more, delete {path}{lapse}.'
  )


def _myself():
  pid = os.getpid()
  return {
    'host': socket.gethostname(),
    'namespace': _namespace(),
    'pid': pid,
    'started': _started(pid),
    'since': time.time(),
    'command': ' '.join(sys.argv)[:300],
    'launch': _launch(os.environ),
    'job': os.environ.get('SLURM_JOB_ID', ''),
    'restarts': int(os.environ.get('SLURM_RESTART_COUNT') or 0),
    'token': secrets.token_hex(8),
  }


def _launch(environment: Mapping[str, str]) -> str:
  """What the processes of one launch share, '' for a process that is alone."""
  for size, names in LAUNCHES:
    number = environment.get(size, '')
    words = [environment[name] for name in names if environment.get(name)]
    if number.isdecimal() and int(number) > 1 and words:
      return ' '.join((size, *words))
  return ''


def _is_requeued(other, mine):
  """Whether the other is an earlier start of this very job: Slurm has ended it."""
  same = mine['job'] and mine['job'] == other.get('job')
  return bool(same and mine['restarts'] > other.get('restarts', 0))


def _same_machine(other):
  mine = (socket.gethostname(), _namespace())
  return (other.get('host'), other.get('namespace')) == mine


def _is_running(other, path):
  pid = other.get('pid')
  if not isinstance(pid, int) or not _same_machine(other) or os.name == 'nt':
    return _age(path) < LAPSED_SECONDS
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except OSError:
    pass  # of another user
  started = _started(pid)
  # Another process may have got its number since.
  return started is None or other.get('started') in (None, started)


def _started(pid):
  """When a process began, in ticks since the machine did; None if unknown.

  0 for one that has ended and whose parent has not asked how.
  """
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return None
  fields = text.rpartition(')')[2].split()
  return 0 if fields[0] in 'ZX' else int(fields[19])


def _namespace():
  """Names the numbering of processes: containers count their own from 1."""
  try:
    return os.readlink('/proc/self/ns/pid')
  except OSError:
    return ''


def _age(path):
  """Seconds since the file was renewed, by the clock of its file system."""
  probe = path.with_name(f'.clock-{secrets.token_hex(4)}')
  try:
    probe.write_text('')
    return probe.stat().st_mtime - path.stat().st_mtime
  except OSError:
    return 0.0
  finally:
    probe.unlink(missing_ok=True)


def _renew(path, mine, end):
  while not end.wait(RENEWED_SECONDS):
    with contextlib.suppress(OSError):
      if (_read(path) or {}).get('token') != mine['token']:
        return
      os.utime(path)


def _read(path):
  """The file's content, {} where it is no JSON, None where there is no file."""
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def _remove(path, other):
  """Removes the file of a process that is gone, but not one that was written since."""
  aside = path.with_name(f'.{path.name}-{secrets.token_hex(4)}')
  try:
    os.rename(path, aside)
  except FileNotFoundError:
    return
  if (_read(aside) or {}).get('token') != other.get('token') and not path.exists():
    os.rename(aside, path)
    return
  aside.unlink(missing_ok=True)
