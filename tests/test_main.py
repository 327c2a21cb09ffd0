"""How `ldm-jax` starts: as one process, or as one of several that find each other."""

import pytest

from ldm_jax import main

LOST = (
  {'PMI_SIZE': '2', 'PMI_RANK': '1'},
  {'WORLD_SIZE': '2', 'RANK': '0'},
  {'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '0'},
)


@pytest.mark.parametrize('environment', LOST, ids=lambda told: next(iter(told)))
def test_one_of_several_that_cannot_find_the_others_writes_nothing_and_says_why(
  tmp_path, monkeypatch, capsys, environment
):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  work = tmp_path / 'work'
  assert main.main(['--config=tests/micro.py', f'--workdir={work}']) == 2
  assert not work.exists()
  (line,) = capsys.readouterr().err.splitlines()
  assert next(iter(environment)) in line and '--coordinator=HOST:PORT' in line


def test_flags_of_several_processes_that_do_not_fit_are_refused(tmp_path, capsys):
  flags = ['--config=tests/micro.py', f'--workdir={tmp_path}', '--num_processes=2']
  assert main.main(flags) == 2
  assert '--coordinator, --process_id' in capsys.readouterr().err
