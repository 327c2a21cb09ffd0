"""Joins the processes of a run by jax's own runtime, and watches over them.

`find` says whether this process is one of several: by its flags, or as Slurm, Open MPI
and Cloud TPU tell their processes. `join` connects them within `JOIN_SECONDS`; from
then on `process_watch` ends them together. `check_alike` and `check_shared` refuse a
set-up that would go wrong later.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ldm_jax import process_watch, processes

JOIN_SECONDS = 45
# jax looks after the processes as well, and ends them with a trace of its C++: later.
JAX_LOST_SECONDS = 600
# (number of processes, rank of this one) as launchers set them, and whether jax finds
# the other processes from it. Both are needed: a shell in an allocation has the first
# alone.
LAUNCHERS = (
  ('SLURM_STEP_NUM_TASKS', 'SLURM_PROCID', True),
  ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK', True),
  ('MV2_COMM_WORLD_SIZE', 'MV2_COMM_WORLD_RANK', False),
  ('PMI_SIZE', 'PMI_RANK', False),
  ('WORLD_SIZE', 'RANK', False),
  ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID', False),
)
FLAGS = ('coordinator', 'num_processes', 'process_id')


def find(
  flags: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any] | None:
  """What `jax.distributed.initialize` is to be told; None for a single process.

  Args:
    flags: of FLAGS, None where not given.
    environment: mapping, such as os.environ.

  Returns:
    Its arguments, {} where it finds all by itself.

  Raises:
    ValueError: flags that do not go together, or several processes that jax cannot
      find.
  """
  given = {name: flags.get(name) for name in FLAGS if flags.get(name) is not None}
  if given:
    return _of_flags(given)
  for size, rank, is_found in LAUNCHERS:
    number = _number(environment.get(size))
    if not environment.get(rank) or number <= 1:
      continue
    address = environment.get('JAX_COORDINATOR_ADDRESS')
    if is_found:
      return {}
    if address:
      return _of_flags(
        {
          'coordinator': address,
          'num_processes': number,
          'process_id': _number(environment[rank]),
        }
      )
    raise ValueError(
      f'ldm-jax was started as one of several processes ({size}={number}), but this '
      'launcher does not say where the first one is. Add --coordinator=HOST:PORT, '
      f'--num_processes={number} and --process_id={environment[rank]}, or start one '
      'process.'
    )
  if len(environment.get('TPU_WORKER_HOSTNAMES', '').split(',')) > 1:
    return {}
  return None


def _of_flags(given):
  if len(given) < len(FLAGS):
    missing = ', '.join(f'--{name}' for name in FLAGS if name not in given)
    raise ValueError(
      f'{missing} is missing; several processes need --coordinator=HOST:PORT, the same '
      'for all, --num_processes=N, and --process_id=I from 0 to N - 1.'
    )
  address, count, number = (given[name] for name in FLAGS)
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise ValueError(
      f'Expected --coordinator=HOST:PORT, an address of the first process, got '
      f'{address!r}.'
    )
  if not 0 <= number < count:
    raise ValueError(
      f'Expected --process_id from 0 to {count - 1} for --num_processes={count}, got '
      f'{number}.'
    )
  if count == 1:
    return None
  return {
    'coordinator_address': address,
    'num_processes': count,
    'process_id': number,
  }


def _number(text):
  return int(text) if text and text.isdecimal() else 0


class _CoordinatorStore:
  """`processes.Store` in jax's coordination service, which the first process holds."""

  def __init__(self, client):
    self._client = client

  def put(self, name: str, text: str) -> None:
    """As `processes.Store.put`."""
    try:
      self._client.key_value_set(name, text)
    except Exception as error:
      explain(error)
      raise

  def take(self, name: str) -> str:
    """As `processes.Store.take`; a process that is lost ends it (`process_watch`)."""
    while True:
      try:
        return self._client.blocking_key_value_get(name, 5000)
      except Exception as error:
        if 'DEADLINE_EXCEEDED' not in str(error):
          explain(error)
          raise


_watch: process_watch.Watch | None = None


def join(arguments: Mapping[str, Any], debug: bool = False) -> None:
  """Connects this process with the others; it ends the process where that fails.

  Args:
    arguments: of `find`.
    debug: leave what native code says on the terminal.
  """
  global _watch
  import jax

  log = None if debug else process_watch.native_messages_to_file()
  address = arguments.get('coordinator_address', 'the first process')
  told = (
    f'the processes did not find each other within {JOIN_SECONDS} seconds at '
    f'{address}. Expected all of them to be started with the same --num_processes and '
    'the same --coordinator, a free port on the host of process 0 that all can reach'
  )
  _check_free(arguments)
  # Perhaps a process was killed or its host comes later: a restart may find it.
  waiting = threading.Timer(JOIN_SECONDS, process_watch.end, (told, process_watch.LOST))
  waiting.daemon = True
  waiting.start()
  process_watch.on_abort(told, process_watch.LOST)
  # Python handles SIGTERM: training saves its state and all processes stop together.
  jax.config.update('jax_enable_preemption_service', False)
  if hasattr(jax.config, 'jax_cpu_collectives_implementation'):
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(
      **arguments,
      initialization_timeout=2 * JOIN_SECONDS,
      heartbeat_timeout_seconds=JAX_LOST_SECONDS,
      shutdown_timeout_seconds=20,
    )
  except RuntimeError as error:
    process_watch.end(f'{told} ({_first_line(error)})', process_watch.LOST)
  except ValueError as error:  # of what it was given
    raise ValueError(f'{told}. ({_first_line(error)})') from error
  # jax offers the store to no one by a public name; orbax uses it like this, too.
  from jax._src import distributed

  state = distributed.global_state
  processes.join(state.process_id, state.num_processes, _CoordinatorStore(state.client))
  hosts = processes.gathered(socket.gethostname())
  waiting.cancel()
  _watch = process_watch.Watch(state.client, hosts, log)
  process_watch.on_abort(_watch.told_of_first(), process_watch.LOST)
  _watch.start()


def check_alike(**facts: Any) -> None:
  """Checks that all processes were started with the same.

  Args:
    **facts: name -> JSON-able value of this process.

  Raises:
    ValueError: in all processes, naming what differs and where.
  """
  found = processes.gathered(facts)
  for name in facts:
    for number, other in enumerate(found):
      if other[name] != found[0][name]:
        raise ValueError(
          f'The processes of a run must be alike, but {name} is {found[0][name]!r} in '
          f'process 0 and {other[name]!r} in process {number}. Start all with the same '
          'command, software and files.'
        )


def check_shared(folder: str | os.PathLike) -> None:
  """Checks that all processes see the same folder: what the first writes, all read.

  Args:
    folder: the work folder; the first process makes it.

  Raises:
    ValueError: in all processes, naming those that do not.
  """
  token = f'{time.time_ns()}'
  path = pathlib.Path(folder).absolute() / '.shared-by-processes'

  def write():
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(token)
    except OSError as error:
      raise ValueError(
        f'The work folder {str(folder)!r} cannot be written ({error.strerror}). Choose '
        'a folder on a writable disk with --workdir.'
      ) from None
    return token

  wanted = processes.first(write)
  seen = processes.gathered(_reads(path, wanted))
  processes.first(lambda: path.unlink(missing_ok=True))
  if not all(seen):
    blind = [str(number) for number, sees in enumerate(seen) if not sees]
    raise ValueError(
      f'The work folder {str(folder)!r} is not shared: what process 0 wrote there, '
      f'process {", ".join(blind)} did not find within 20 seconds. Expected a file '
      'system that all hosts mount at the same place; choose another --workdir.'
    )


def _reads(path, wanted, seconds=20.0):
  end = time.monotonic() + seconds
  while True:
    with contextlib.suppress(OSError):
      os.listdir(path.parent)  # makes a network file system look again
      if path.read_text() == wanted:
        return True
    if time.monotonic() > end:
      return False
    time.sleep(0.2)


def leave(status: int, told: str = '') -> None:
  """Ends this process's part in the run; returns only for a single process.

  After success it waits for the others. After a failure it tells them, waits until
  they have heard, and ends the process.

  Args:
    status: exit status.
    told: what this process has told its user.
  """
  if _watch is None:
    return
  _watch.leave(status, told)


def leave_as_told(told: str, status: int) -> None:
  """Ends a process whose work another one, which has told its user, has ended."""
  if not sys.stderr.closed:
    print(f'ldm-jax: process 0 has stopped: {told}', file=sys.stderr)
  leave(status, told)


@contextlib.contextmanager
def silent_unless_first() -> Iterator[None]:
  """Within the block only the first process prints to stdout: it speaks for all."""
  if processes.is_first():
    yield
    return
  with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
    yield


def code_digest() -> str:
  """Digest of the package's Python files."""
  digest = hashlib.sha256()
  folder = pathlib.Path(__file__).parent
  for path in sorted(folder.rglob('*.py')):
    digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
  return digest.hexdigest()[:16]


def explain(error: BaseException) -> None:
  """Ends the process where another one's end is the reason of an error."""
  words = ('Gloo', 'NCCL', 'nccl', 'oordination', 'onnection', 'UNAVAILABLE')
  if _watch is not None and any(word in str(error) for word in words):
    _watch.wait_for_reason()


def _check_free(arguments):
  """Refuses a coordinator's port that another program has, which jax would abort at."""
  if arguments.get('process_id') != 0:
    return
  port = int(arguments['coordinator_address'].rpartition(':')[2])
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('', port))
    except OSError as error:
      raise ValueError(
        f'Port {port} of --coordinator={arguments["coordinator_address"]} cannot be '
        f'used on this host ({error.strerror}). Choose a free one for all processes.'
      ) from error


def _first_line(error):
  return str(error).strip().partition('\n')[0][:200]
