"""How `ldm-jax` starts: one process alone works in a folder."""

import pytest

from ldm_jax import main

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
