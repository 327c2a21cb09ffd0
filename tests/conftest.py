"""Settings of every test: four virtual devices, fast compilation, real data.

What a work folder of the whole pipeline shows is tested on copies of one, `finished`.
"""

import atexit
import fcntl
import functools
import importlib.util
import itertools
import mmap
import os
import pathlib
import secrets
import shutil
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Tests compile much and compute little: LLVM's optimisation would double the time of
# compilation, and so would XLA's newer way of writing fused loops. A program in one
# part compiles in three quarters of the time of one that is split into many.
FLAGS = (
  'xla_force_host_platform_device_count=4',
  'xla_backend_optimization_level=0',
  'xla_cpu_use_fusion_emitters=false',
  'xla_cpu_parallel_codegen_split_count=1',
)


# What --fast leaves out: all that begins from the whole pipeline, and these files and
# folders, which compile networks, start processes or integrate privacy losses.
SLOW_FIXTURES = {'finished', 'exported'}
SLOW = (
  'data/test_fuzz.py',
  'data/test_hostile.py',
  'evaluation',
  'models',
  'pipeline',
  'privacy/test_accountants.py',
  'privacy/test_accounting.py',
  'privacy/test_broken.py',
  'privacy/test_broken_schemes.py',
  'privacy/test_budget.py',
  'privacy/test_epsilon_lower_bounds.py',
  'privacy/test_ghost.py',
  'privacy/test_gradients.py',
  'privacy/test_mechanisms.py',
  'report/test_viewer.py',
  'diffusion/test_drift.py',
  'diffusion/test_order.py',
  'diffusion/test_solvers.py',
  'synthesis',
  'test_benchmarks.py',
  'test_cluster.py',
  'test_end_to_end.py',
  'test_interpreters.py',
  'test_main.py',
  'test_jax_environment.py',
  'test_notebooks.py',
  'test_several_processes.py',
  'test_slurm.py',
  'test_what_leaves.py',
  'training/test_adversarial_loss.py',
  'training/test_jax_settings.py',
  'training/test_methods.py',
  'training/test_networks.py',
  'training/test_pair_examples.py',
  'training/test_private_run.py',
  'training/test_private_step.py',
  'training/test_processes.py',
  'training/test_unreachable.py',
)


def known_flags():
  """Those of FLAGS that this jaxlib has: an unknown one would end the process."""
  spec = importlib.util.find_spec('jaxlib')
  folder = pathlib.Path(spec.submodule_search_locations[0])
  for library in (folder / 'libjax_common.so', *folder.glob('xla_extension*')):
    if library.is_file():
      with (
        open(library, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
      ):
        names = {flag: flag.partition('=')[0].encode() for flag in FLAGS}
        return [flag for flag, name in names.items() if content.find(name) >= 0]
  return FLAGS[:2]


# No test writes into the user's registry of private releases; see `state_folder`.
STATE = os.environ['XDG_STATE_HOME'] = tempfile.mkdtemp(prefix='ldm-jax-state-')
atexit.register(shutil.rmtree, STATE, ignore_errors=True)

# The workers of a session inherit the flags of the process that started them.
if FLAGS[0] not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = ' '.join(
    (os.environ.get('XLA_FLAGS', ''), *(f'--{flag}' for flag in known_flags()))
  )
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# A module that sets up jax must not pin the memory of all tests of its process.
os.environ.setdefault('LDM_JAX_KEEP_MEMORY', '0')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')
# What calls oneDNN is never cached; tests of networks and steps turn it on.
os.environ.setdefault('LDM_JAX_ONEDNN', '0')

import pytest  # noqa: E402 (after the settings that jax reads)


def pytest_addoption(parser):
  """`--fast` of launch/test.sh."""
  text = 'leave out what runs the pipeline or compiles large programs'
  parser.addoption('--fast', action='store_true', help=text)


def pytest_collection_modifyitems(config, items):
  """With --fast only what is quick: without SLOW and SLOW_FIXTURES.

  Otherwise files that begin from the whole pipeline come first: one process runs it
  while the others, which begin further on, need not wait for it.
  """
  if not config.getoption('fast'):
    first = {item.path for item in items if SLOW_FIXTURES & set(item.fixturenames)}
    items.sort(key=lambda item: item.path not in first)
    return
  tests = ROOT / 'tests'
  slow = [
    item
    for item in items
    if SLOW_FIXTURES & set(item.fixturenames)
    or any((tests / name) in (item.path, *item.path.parents) for name in SLOW)
  ]
  left_out = {id(item) for item in slow}
  config.hook.pytest_deselected(items=slow)
  items[:] = [item for item in items if id(item) not in left_out]


@pytest.fixture(scope='session', autouse=True)
def thousands_of_small_programs():
  """Settings of this process for tests, which compile far more than they compute.

  The collector looks less often at the many objects of traced programs, and jax's
  context of MLIR, which it makes anew for every program, serves some hundred of them:
  each saves a fifth of the time of tests/diffusion. A jax that names it otherwise does
  without.
  """
  import gc

  from jax._src.interpreters import mlir

  gc.set_threshold(100_000, 50, 100)
  make = getattr(mlir, 'make_ir_context', None)
  if make is None:
    return
  reusable = functools.lru_cache(maxsize=1)(lambda _: make())
  number = itertools.count()
  mlir.make_ir_context = lambda: reusable(next(number) // 200)


def new_state():
  """A registry of private releases of its own; it is created when used."""
  return str(pathlib.Path(STATE) / secrets.token_hex(8))


@pytest.fixture(autouse=True, scope='module')
def state_of_module():
  """For what a module's fixtures run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_STATE_HOME', new_state())
    yield


@pytest.fixture(autouse=True)
def state_folder(monkeypatch):
  """For this test alone."""
  monkeypatch.setenv('XDG_STATE_HOME', new_state())
  return pathlib.Path(os.environ['XDG_STATE_HOME'])


@pytest.fixture
def users_convolutions(monkeypatch):
  """Convolutions as users have them, although their programs are never cached.

  Their products stay in float32, as in laws that are compared with other ways.
  """
  import jax

  monkeypatch.setenv('LDM_JAX_ONEDNN', '1')
  with jax.default_matmul_precision('float32'):
    yield


@pytest.fixture
def normal_draws(monkeypatch):
  """(key words, size or shape) of every normal draw, jax's own or of noise.

  Draws of compiled functions tell of themselves: wait for `jax.effects_barrier`.
  """
  import jax
  import numpy as np

  from ldm_jax.privacy import noise

  draws = []

  def record(module, name):
    draw = getattr(module, name)

    def recorded(key, shape=(), *args, **kwargs):
      seen = lambda words: draws.append((tuple(np.asarray(words).tolist()), shape))
      jax.debug.callback(seen, jax.random.key_data(key))
      return draw(key, shape, *args, **kwargs)

    monkeypatch.setattr(module, name, recorded)

  record(jax.random, 'normal')
  record(noise, 'threefry_normals')
  return draws


@pytest.fixture(scope='session')
def real_data():
  """Folder of the openly licensed scans; tests that need them skip without."""
  default = ROOT.parent / 'shared' / 'data'
  folder = pathlib.Path(os.environ.get('LDM_JAX_REAL_DATA') or default)
  if not folder.is_dir():
    pytest.skip(f'no real scans at {folder}; set LDM_JAX_REAL_DATA')
  return folder


@pytest.fixture(scope='session')
def golden():
  """Folder of the reference implementation's outputs."""
  folder = pathlib.Path(
    os.environ.get('LDM_JAX_GOLDEN', ROOT.parent / 'shared' / 'golden')
  )
  if not folder.is_dir():
    pytest.skip(f'no reference outputs at {folder}; set LDM_JAX_GOLDEN')
  return folder


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  """Work folder of one unbroken run of tests/micro.py through the command line.

  One for all processes of a test session: the first that needs it makes it, the others
  wait. Nothing is written into it; who changes something does so in a copy.
  """
  base = tmp_path_factory.getbasetemp()
  shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
  work, status = shared / 'micro' / 'work', shared / 'micro' / 'status'
  status.parent.mkdir(exist_ok=True)
  with open(shared / 'micro' / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
    if not status.exists():
      from ldm_jax import main

      flags = [f'--config={ROOT / "tests" / "micro.py"}', f'--workdir={work}']
      status.write_text(str(main.main([*flags, '--debug'])))
  assert status.read_text() == '0', 'the run of tests/micro.py failed, see above'
  return work


@pytest.fixture(scope='session')
def exported(finished, tmp_path_factory):
  """Work folder of `finished` after the stage export; as shared and as read-only."""
  base = tmp_path_factory.getbasetemp()
  shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
  work, status = shared / 'micro' / 'exported', shared / 'micro' / 'exported.status'
  with open(shared / 'micro' / 'exported.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not status.exists():
      import shutil

      from ldm_jax import main

      shutil.copytree(finished, work)
      flags = [f'--config={ROOT / "tests" / "micro.py"}', f'--workdir={work}']
      flags += ['--stages=export', '--config.export.unprotected=true', '--debug']
      status.write_text(str(main.main(flags)))
  assert status.read_text() == '0', 'the stage export failed, see above'
  return work
