"""launch/gpu_slurm.sh under a real Slurm of two nodes, where one is installed."""

import json
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.slurm import Slurm, ports, why_not

ROOT = pathlib.Path(__file__).resolve().parent.parent
AGAIN = ('prepare', 'sample')


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  if why_not():
    pytest.skip(why_not())
  try:
    slurm = Slurm(tmp_path_factory.mktemp('slurm'))
  except RuntimeError as error:
    pytest.skip(str(error))
  yield slurm
  slurm.stop()


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """A copy of the repository whose .venv is this interpreter, already installed."""
  root = tmp_path_factory.mktemp('checkout')
  shutil.copytree(ROOT / 'launch', root / 'launch')
  for name in ('setup.py', 'pyproject.toml'):
    shutil.copy(ROOT / name, root / name)
  tools = root / '.venv' / 'bin'
  tools.mkdir(parents=True)
  for name, words in (('python', ''), ('ldm-jax', '-m ldm_jax.main')):
    text = f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" {words} "$@"\n'
    (tools / name).write_text(text)
    (tools / name).chmod(0o755)
  # What launch/common.sh leaves when it has installed the package.
  stamp = '. launch/common.sh; echo "$repo $(cat setup.py pyproject.toml | cksum)"'
  command = f'{stamp} > .venv/.installed-run'
  subprocess.run(['bash', '-c', command], cwd=root, check=True)
  return root


@pytest.fixture
def submit(slurm, checkout):
  """submit(work folder, flags): a job of two nodes, one task on each -> its number."""

  def submit(work, *flags):
    settings = {'PARTITION': 'gpu', 'NODES': '2', 'GPUS': '0', 'CPUS': '1', 'MEM': '1G'}
    # A host of a cluster has an address; n1 and n2 stand for this machine.
    settings['JAX_COORDINATOR_ADDRESS'] = f'127.0.0.1:{ports(1)[0]}'
    script, config = checkout / 'launch' / 'gpu_slurm.sh', ROOT / 'tests' / 'micro.py'
    told = slurm.call(str(script), str(config), str(work), *flags, **settings)
    return told.split()[-1]

  return submit


def completed(slurm, job):
  """What a job has printed, once it has ended well."""
  state, output = slurm.end_of(job, 600), slurm.folder / f'slurm-{job}.out'
  assert state == 'COMPLETED', output.read_text()[-3000:]
  return output.read_text()


def test_two_nodes_leave_what_one_process_leaves(slurm, submit, finished, tmp_path):
  work = tmp_path / 'work'
  shutil.copytree(finished, work)
  shutil.rmtree(work / 'store' / 'volumes')
  for stage in AGAIN:
    (work / 'checkpoints' / stage / 'done.json').unlink()
  told = completed(slurm, submit(work, f'--stages={",".join(AGAIN)}'))
  assert 'Traceback' not in told and told.count('prepare: public') == 1
  for path in (finished / 'store' / 'volumes').iterdir():
    assert path.read_bytes() == (work / 'store' / 'volumes' / path.name).read_bytes()
  ours, theirs = (np.load(w / 'store' / 'samples.npz') for w in (work, finished))
  for name in theirs:
    if theirs[name].dtype.kind == 'f':
      np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, err_msg=name)
  for name in ('samples/samples.csv', 'store/ledger-private.jsonl', 'privacy.json'):
    assert (work / name).read_bytes() == (finished / name).read_bytes()


def test_a_job_that_is_preempted_saves_its_state_and_goes_on_by_itself(
  slurm, submit, tmp_path
):
  work, steps = tmp_path / 'work', 40
  job = submit(
    work,
    '--stages=prepare,autoencoder',
    f'--config.autoencoder.steps={steps}',
    '--config.run.checkpoint_every=100000',
  )
  while len(taken(work)) < 3:
    assert slurm.about(job)['JobState'] in ('PENDING', 'RUNNING')
    time.sleep(0.2)
  slurm.call('scancel', '--batch', '--signal=TERM', job)
  told = completed(slurm, job)
  assert slurm.about(job)['Restarts'] == '1', told[-3000:]
  assert 'interrupted, the state after step' in told
  assert 'SIGTERM: this step is finished and saved' in told
  assert taken(work) == list(range(1, steps + 1)), 'no step is lost or taken twice'


def taken(work):
  """Numbers of the steps of the autoencoder in the log."""
  log = work / 'log.jsonl'
  lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
  events = [json.loads(line) for line in lines if line.endswith('\n')]
  return [e['step'] for e in events if e.get('stage') == 'autoencoder' and 'loss' in e]
