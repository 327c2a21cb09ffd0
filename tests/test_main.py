"""What `ldm-jax` sets before jax is imported."""

import os
import subprocess
import sys

import pytest

from ldm_jax import main

# Prints how many pages the last ten of many calls have to ask for. Each result takes 64
# MB, which calls before have freed; aligned blocks fit one another after some calls.
CALLS = """
from ldm_jax import main
main.set_up_jax()
import resource
import jax
import jax.numpy as jnp
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**24)
for call in range(40):
  if call == 30:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  double(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

# Compiles what XLA cannot store, where oneDNN is, and warns of a cache as jax does.
WARNINGS = """
from ldm_jax import main
main.set_up_jax()
import warnings
import jax
import jax.numpy as jnp
from ldm_jax.models.convolution import convolve
x, kernel = jnp.ones((1, 8, 8, 8, 16)), jnp.ones((3, 3, 3, 16, 16))
jax.jit(convolve)(x, kernel).block_until_ready()
warnings.warn("Error writing persistent compilation cache entry for 'f': disk full")
"""


def run(script, **environment):
  """Another process, since what is set in this one would stay for all its tests."""
  return subprocess.run(
    [sys.executable, '-c', script],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', **environment},
    capture_output=True,
    text=True,
    check=True,
  )


def test_a_step_takes_the_memory_of_the_step_before():
  ask = 'from ldm_jax import main; print(main.keep_memory())'
  if run(ask, LDM_JAX_KEEP_MEMORY='1').stdout != 'True\n':
    pytest.skip('another C library than glibc, or an accelerator')
  kept = int(run(CALLS, LDM_JAX_KEEP_MEMORY='1').stdout)
  given_back = int(run(CALLS, LDM_JAX_KEEP_MEMORY='0').stdout)
  # A huge page, where the system gives them unasked, is one fault for 2 MB.
  assert kept < 160 <= given_back


def test_memory_is_left_alone_where_that_is_asked_for(monkeypatch):
  monkeypatch.setenv('LDM_JAX_KEEP_MEMORY', '0')
  assert not main.keep_memory()


def test_of_the_cache_only_what_a_user_can_mend_is_warned_of(tmp_path):
  told = run(
    WARNINGS,
    LDM_JAX_ONEDNN='1',
    JAX_COMPILATION_CACHE_DIR=str(tmp_path),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  ).stderr
  assert 'disk full' in told
  assert 'bad_alloc' not in told


SEVERAL = (
  {'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': '0'},
  {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3'},
  {'PMI_SIZE': '2', 'PMI_RANK': '1'},
  {'WORLD_SIZE': '2', 'RANK': '0'},
  {'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '0'},
  {'TPU_WORKER_HOSTNAMES': 't1k-w-0,t1k-w-1'},
)
ALONE = (
  {},
  # A shell within an allocation of four tasks; a step of one; one rank of one.
  {'SLURM_NTASKS': '4', 'SLURM_PROCID': '0', 'SLURM_JOB_NUM_NODES': '2'},
  {'SLURM_NTASKS': '4', 'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'},
  {'OMPI_COMM_WORLD_SIZE': '1', 'OMPI_COMM_WORLD_RANK': '0'},
  {'WORLD_SIZE': '2'},
  {'TPU_WORKER_HOSTNAMES': 'localhost'},
)


@pytest.mark.parametrize('environment', SEVERAL, ids=lambda told: next(iter(told)))
def test_one_of_several_processes_writes_nothing_and_says_why(
  tmp_path, monkeypatch, capsys, environment
):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  work = tmp_path / 'work'
  assert main.main(['--config=tests/micro.py', f'--workdir={work}']) == 2
  assert not work.exists()
  (line,) = capsys.readouterr().err.splitlines()
  assert next(iter(environment)) in line and 'one process on one host' in line


@pytest.mark.parametrize('environment', ALONE)
def test_a_shell_within_an_allocation_is_one_process(environment):
  main.require_one_process(environment)
