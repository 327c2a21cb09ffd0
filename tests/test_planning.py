"""Laws of ldm-jax-privacy: forth and back agree, bad values end with status 2."""

import json
import subprocess
import sys

import pytest

from ldm_jax.privacy import command

COHORT = ['--delta=1e-5', '--num_patients=10000', '--batch_size=256', '--steps=5860']


def run(capsys, *flags):
  status = command.main(list(flags))
  captured = capsys.readouterr()
  return status, captured.out, captured.err


def test_the_calibrated_multiplier_gives_back_its_epsilon(capsys):
  status, out, _ = run(capsys, '--epsilon=10', *COHORT, '--json')
  there = json.loads(out)
  assert status == 0
  assert 1.15 < there['noise_multiplier'] < 1.26
  flag = f'--noise_multiplier={there["noise_multiplier"]!r}'
  back = json.loads(run(capsys, flag, *COHORT, '--json')[1])
  assert back == there
  assert 9.99 < back['epsilon'] <= 10
  assert back['accountants']['pld'] == back['epsilon'] < back['accountants']['rdp']
  assert back['sampling_probability'] == 0.0256


def test_the_plain_output_names_the_multiplier_and_both_accountants(capsys):
  status, out, err = run(capsys, '--noise_multiplier=1.26', *COHORT)
  assert (status, err) == (0, '')
  assert 'noise multiplier  1.26' in out
  assert 'PLD' in out and 'RDP' in out


@pytest.mark.parametrize(
  ('flags', 'named'),
  [
    (['--epsilon=0', *COHORT], 'epsilon is 0'),
    (['--epsilon=-1', *COHORT], 'epsilon is -1'),
    (['--epsilon=nan', *COHORT], 'epsilon is nan'),
    (['--epsilon=inf', *COHORT], 'epsilon is inf'),
    (['--epsilon=ten', *COHORT], '--epsilon'),
    (['--noise_multiplier=0', *COHORT], 'noise multiplier is 0'),
    (['--noise_multiplier=nan', *COHORT], 'noise multiplier is nan'),
    (COHORT, 'exactly one'),
    (['--epsilon=1', '--noise_multiplier=1', *COHORT], 'exactly one'),
    (['--epsilon=1', *COHORT[1:]], '--delta'),
    (['--epsilon=1', *COHORT, '--delta=1e-4'], '1/num_patients'),
    (['--epsilon=1', *COHORT, '--delta=0'], 'delta is 0'),
    (['--epsilon=1', *COHORT, '--batch_size=10001'], 'cannot exceed the cohort'),
    (['--epsilon=1', *COHORT, '--batch_size=-5'], 'batch size is -5'),
    (['--epsilon=1', *COHORT, '--steps=0'], 'number of steps is 0'),
    (['--epsilon=1', *COHORT, '--steps=1e3'], '--steps'),
    (['--epsilon=1', *COHORT, '--num_patients=0'], 'number of private patients'),
    (['--epsilon=1', *COHORT, '--epsilom=2'], '--epsilom'),
    (['--epsilon=501', *COHORT], 'epsilon is 501'),
  ],
)
def test_bad_values_end_with_status_2_and_one_paragraph(capsys, flags, named):
  status, out, err = run(capsys, *flags)
  assert (status, out) == (2, '')
  assert named in err
  assert err.count('\n') == 1
  assert 'Traceback' not in err


def test_the_command_needs_no_accelerator_library():
  code = 'import sys, ldm_jax.privacy.command; sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0
