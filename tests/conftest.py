"""Settings of every test: four virtual devices, fast compilation, real data."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile much and compute little: without LLVM's optimisation a quarter of the
# time goes into compilation.
os.environ['XLA_FLAGS'] = ' '.join(
  (
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=4',
    '--xla_backend_optimization_level=0',
  )
)
ROOT = pathlib.Path(__file__).resolve().parent.parent
# A module that sets up jax must not pin the memory of all tests of its process.
os.environ.setdefault('LDM_JAX_KEEP_MEMORY', '0')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
# What calls oneDNN is never cached; tests of networks and steps turn it on.
os.environ.setdefault('LDM_JAX_ONEDNN', '0')

import pytest  # noqa: E402 (after the settings that jax reads)


@pytest.fixture
def users_convolutions(monkeypatch):
  """Convolutions as users have them, although their programs are never cached."""
  monkeypatch.setenv('LDM_JAX_ONEDNN', '1')


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
  """Work folder of one unbroken run of tests/micro.py through the command line."""
  from ldm_jax import main

  work = tmp_path_factory.mktemp('micro') / 'work'
  config = ROOT / 'tests' / 'micro.py'
  status = main.main([f'--config={config}', f'--workdir={work}', '--debug'])
  assert status == 0
  return work
