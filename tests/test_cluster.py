"""How a process finds out that it is one of several, and what is refused."""

import pathlib
import socket
import subprocess
import sys
import time

import pytest

from ldm_jax import cluster, process_watch, processes

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = {'coordinator': 'host:1234', 'num_processes': 4, 'process_id': 3}


def test_without_flags_and_launcher_there_is_one_process():
  assert cluster.find({}, {}) is None
  assert cluster.find(dict.fromkeys(FLAGS), {}) is None
  assert cluster.find({**FLAGS, 'num_processes': 1, 'process_id': 0}, {}) is None


def test_flags_name_the_cluster():
  assert cluster.find(FLAGS, {}) == {
    'coordinator_address': 'host:1234',
    'num_processes': 4,
    'process_id': 3,
  }


@pytest.mark.parametrize(
  ('wrong', 'told'),
  [
    ({'process_id': None}, '--process_id is missing'),
    ({'coordinator': None, 'num_processes': None}, '--coordinator, --num_processes'),
    ({'coordinator': 'host'}, 'HOST:PORT'),
    ({'coordinator': 'host:99999'}, 'HOST:PORT'),
    ({'process_id': 4}, 'from 0 to 3'),
    ({'process_id': -1}, 'from 0 to 3'),
  ],
)
def test_flags_that_do_not_go_together_are_refused(wrong, told):
  with pytest.raises(ValueError, match=told):
    cluster.find({**FLAGS, **wrong}, {})


@pytest.mark.parametrize(
  'environment',
  [
    {'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': '1'},
    {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '0'},
    {'TPU_WORKER_HOSTNAMES': 'a,b'},
  ],
  ids=lambda told: next(iter(told)),
)
def test_jax_finds_what_these_launchers_start(environment):
  assert cluster.find({}, environment) == {}
  # Flags come first, as for pods of a TPU slice on Kubernetes.
  assert cluster.find(FLAGS, environment)['process_id'] == 3


@pytest.mark.parametrize(
  'environment',
  [
    {'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'},
    {'SLURM_NTASKS': '4'},
    {'OMPI_COMM_WORLD_SIZE': '1', 'OMPI_COMM_WORLD_RANK': '0'},
    {'WORLD_SIZE': '2'},
    {'TPU_WORKER_HOSTNAMES': 'localhost'},
  ],
)
def test_a_shell_within_an_allocation_is_one_process(environment):
  assert cluster.find({}, environment) is None


@pytest.mark.parametrize(
  'environment',
  [
    {'WORLD_SIZE': '2', 'RANK': '1'},
    {'PMI_SIZE': '3', 'PMI_RANK': '0'},
    {'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '0'},
  ],
)
def test_a_launcher_that_does_not_name_the_first_process_is_refused_or_helped(
  environment,
):
  with pytest.raises(ValueError, match=f'{next(iter(environment))}.*--coordinator'):
    cluster.find({}, environment)
  helped = {**environment, 'JAX_COORDINATOR_ADDRESS': 'a:1'}
  assert cluster.find({}, helped)['coordinator_address'] == 'a:1'


def test_unlike_processes_are_named(monkeypatch):
  mine = {'the version of jax': '1', '--stages': ''}
  others = [mine, mine, {**mine, 'the version of jax': '2'}]
  monkeypatch.setattr(processes, 'gathered', lambda facts: others)
  with pytest.raises(ValueError, match=r"version of jax is '1'.*'2' in process 2"):
    cluster.check_alike(**mine)
  monkeypatch.setattr(processes, 'gathered', lambda facts: [mine, mine])
  cluster.check_alike(**mine)


def test_a_folder_that_others_do_not_see_is_refused(monkeypatch, tmp_path):
  monkeypatch.setattr(processes, 'gathered', lambda seen: [seen, False, False])
  with pytest.raises(ValueError, match=r'not shared.*process 1, 2 did not find'):
    cluster.check_shared(tmp_path / 'work')
  monkeypatch.setattr(processes, 'gathered', lambda seen: [seen])
  cluster.check_shared(tmp_path / 'work')
  assert not any((tmp_path / 'work').iterdir())


def test_code_that_differs_has_another_digest(monkeypatch, tmp_path):
  monkeypatch.setattr(cluster, '__file__', str(tmp_path / 'cluster.py'))
  (tmp_path / 'a.py').write_text('a')
  before = cluster.code_digest()
  assert cluster.code_digest() == before
  (tmp_path / 'a.py').write_text('b')
  assert cluster.code_digest() != before


JOIN = """
import sys
from ldm_jax import cluster
cluster.JOIN_SECONDS = 4
cluster.join(cluster.find(
  {'coordinator': sys.argv[1], 'num_processes': 2, 'process_id': int(sys.argv[2])}, {}
))
"""


@pytest.mark.parametrize('number', [0, 1])
def test_a_process_that_finds_no_other_ends_with_one_sentence(number):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  began = time.monotonic()
  done = subprocess.run(
    [sys.executable, '-c', JOIN, f'127.0.0.1:{port}', str(number)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == process_watch.LOST, done.stderr
  (line,) = filter(None, done.stderr.splitlines())
  assert 'did not find each other' in line and '--coordinator' in line
  assert time.monotonic() - began < 60


WORK = """
import sys, time
from ldm_jax import cluster, process_watch, processes
process_watch.LOST_SECONDS, process_watch.GRACE_SECONDS = 15, 1
cluster.join(cluster.find(
  {'coordinator': sys.argv[1], 'num_processes': 2, 'process_id': int(sys.argv[2])}, {}
))
print('joined', flush=True)
if sys.argv[3] == 'fails' and processes.number() == 1:
  cluster.leave(2, 'a key is wrong')
if sys.argv[3] == 'ends':
  cluster.leave(0)
processes.barrier()
processes.agreed(time.sleep(100))
"""


@pytest.fixture
def two():
  """start(what they do) -> two joined processes, ended after the test."""
  begun = []

  def start(what):
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{probe.getsockname()[1]}'
    for number in '01':
      words = [sys.executable, '-c', WORK, address, number, what]
      pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
      begun.append(subprocess.Popen(words, cwd=ROOT, **pipes))
    for process in begun:
      assert process.stdout.readline() == 'joined\n', process.stderr.read()
    return begun

  yield start
  for process in begun:
    process.kill()
    process.communicate()


@pytest.mark.parametrize('victim', [0, 1])
def test_where_one_process_is_killed_the_other_ends_with_one_sentence(two, victim):
  both = two('waits')
  both[victim].kill()
  _, told = both[1 - victim].communicate(timeout=60)
  assert both[1 - victim].returncode == process_watch.LOST, told
  (line,) = filter(None, told.splitlines())
  assert f'process {victim} on' in line and 'the same command goes on' in line


def test_where_one_process_fails_the_other_hears_why(two):
  first, second = two('fails')
  _, told = first.communicate(timeout=60)
  assert first.returncode == second.wait(timeout=60) == 2
  (line,) = filter(None, told.splitlines())
  assert 'process 1 on' in line and line.endswith('a key is wrong.')


def test_processes_that_have_done_their_work_end_without_a_word(two):
  for process in two('ends'):
    assert process.communicate(timeout=60) == ('', '')
    assert process.returncode == 0


def test_a_port_that_is_taken_is_named():
  with socket.socket() as taken:
    taken.bind(('', 0))
    taken.listen()
    port = taken.getsockname()[1]
    arguments = {'process_id': 0, 'coordinator_address': f'here:{port}'}
    with pytest.raises(ValueError, match=f'Port {port}'):
      cluster._check_free(arguments)
    cluster._check_free({**arguments, 'process_id': 1})
