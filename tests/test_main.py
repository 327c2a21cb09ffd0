"""How `ldm-jax` starts: as one process, or as one of several that find each other."""

import errno

import pytest

from ldm_jax import main, stages

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


FAILURES = (
  FileNotFoundError(errno.ENOENT, 'No such file or directory', '/data/PATIENT7.nii'),
  KeyError('PATIENT7'),
  PermissionError(errno.EACCES, 'Permission denied', '/data/PATIENT7.nii'),
)


@pytest.mark.parametrize('debug', [False, True])
@pytest.mark.parametrize('failure', FAILURES, ids=lambda each: type(each).__name__)
def test_an_error_that_names_a_patient_goes_to_a_file_in_the_store(
  tmp_path, monkeypatch, capfd, failure, debug
):
  def fail(*args):
    raise failure

  monkeypatch.setattr(stages, 'run', fail)
  real = [f'--config.data.{name}.layout=folder' for name in ('public', 'private')]
  real += [f'--config.data.{name}.root=x' for name in ('public', 'private')]
  work = tmp_path / 'work'
  flags = ['--config=tests/micro.py', f'--workdir={work}', *['--debug'] * debug]
  monkeypatch.setattr('ldm_jax.config.checks.check', lambda config: config)
  assert main.main([*flags, *real]) == 1
  printed = ''.join(capfd.readouterr())
  assert 'PATIENT7' not in printed and 'traceback.txt' in printed
  path = work / 'store' / 'traceback.txt'
  assert 'PATIENT7' in path.read_text() and path.stat().st_mode & 0o777 == 0o600
  # Patients of a phantom are made up, and a full disk names nobody.
  assert main.main(flags) == 1
  assert 'PATIENT7' in ''.join(capfd.readouterr())
  failure = OSError(errno.ENOSPC, 'No space left on device')
  monkeypatch.setattr(stages, 'run', lambda *args: _raise(failure))
  assert main.main([*flags, *real]) == 1
  assert main.ADVICE in ''.join(capfd.readouterr())


def _raise(error):
  raise error


def test_flags_of_several_processes_that_do_not_fit_are_refused(tmp_path, capsys):
  flags = ['--config=tests/micro.py', f'--workdir={tmp_path}', '--num_processes=2']
  assert main.main(flags) == 2
  assert '--coordinator, --process_id' in capsys.readouterr().err
