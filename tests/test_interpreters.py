"""The programs of a run end well under every Python that can run them here."""

import pathlib
import shutil
import subprocess

import pytest

from tests.interpreters import environment, interpreters

MICRO = pathlib.Path(__file__).with_name('micro.py')
# All other tests run under this Python; it stands in where there is no other.
OTHERS = interpreters()[1:] or interpreters()


def run(python, work, stages, *flags):
  """Runs stages as a user does: oneDNN, kept memory, and a cache that takes it all."""
  told = subprocess.run(
    [
      *(python, '-m', 'ldm_jax.main', f'--config={MICRO}', f'--workdir={work}'),
      *(f'--stages={stages}', *flags),
    ],
    env=environment(
      python,
      LDM_JAX_ONEDNN='1',
      LDM_JAX_KEEP_MEMORY='1',
      HOME=str(work.parent),
      JAX_COMPILATION_CACHE_DIR=str(work.parent / 'jax'),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
      JAX_RAISE_PERSISTENT_CACHE_ERRORS='1',
    ),
    capture_output=True,
    text=True,
  )
  assert told.returncode == 0, told.stderr[-2000:]
  assert 'persistent compilation cache' not in told.stderr
  assert list((work.parent / 'jax').glob('*-cache'))


@pytest.mark.parametrize('python', OTHERS)
def test_the_first_stages_end_well(python, tmp_path):
  flag = '--config.autoencoder.steps=1'
  run(python, tmp_path / 'work', 'prepare,autoencoder', flag)


@pytest.mark.parametrize('python', OTHERS)
def test_sampling_editing_and_the_audit_end_well(python, finished, tmp_path):
  work = shutil.copytree(finished, tmp_path / 'work')
  flags = ('--config.audit.num_canaries=8', '--config.audit.participations=2')
  changed = ('--config.sample.num=8', '--config.counterfactual.steps=2')
  run(python, work, 'sample,counterfactual,audit', *flags, *changed)
