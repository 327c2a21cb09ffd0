"""Laws of ldm-jax-privacy: forth and back agree, bad values end with status 2."""

import json
import subprocess
import sys

import pytest

from ldm_jax.commands import plan_privacy
from ldm_jax.privacy import budget
from ldm_jax.report import figures

COHORT = ['--delta=1e-5', '--num_patients=10000', '--batch_size=256', '--steps=5860']


def run(capsys, *flags):
  status = plan_privacy.main(list(flags))
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


def test_the_price_of_publishing_the_best_run_alone_is_told_where_asked_for(capsys):
  cohort = ['--delta=1e-3', '--num_patients=60', '--batch_size=20', '--steps=10']
  status, out, _ = run(capsys, '--noise_multiplier=4', *cohort, '--best_of=10')
  assert status == 0 and 'best of' in out and '10 on average' in out
  told = [
    run(capsys, '--noise_multiplier=4', *cohort, *more, '--json')
    for more in ([], ['--best_of=1'], ['--best_of=10'])
  ]
  alone, one, ten = (json.loads(out) for _, out, _ in told)
  assert 'epsilon_best_of' not in alone and alone['epsilon'] == ten['epsilon']
  assert alone['epsilon'] < one['epsilon_best_of'] < ten['epsilon_best_of']
  status, _, err = run(capsys, '--noise_multiplier=4', *cohort, '--best_of=0.5')
  assert status == 2 and '--best_of' in err


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
    (['--epsilon=1', *COHORT[:2], COHORT[3]], '--batch_size'),
    (['--epsilon=1', *COHORT, '--curves=a.png'], 'needs --plan'),
    (['--plan', '--noise_multiplier=1', *COHORT], 'starts from --epsilon'),
    (['--plan', '--epsilon=1', *COHORT, '--num_parameters=0'], '--num_parameters'),
    (['--epsilon=1', '--noise_multiplier=1', *COHORT], 'exactly one'),
    (['--epsilon=1', *COHORT[1:]], '--delta'),
    (['--epsilon=1', *COHORT, '--delta=1e-4'], '1/num_patients'),
    (['--epsilon=1', *COHORT, '--delta=0'], 'got 0.0'),
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
  code = 'import sys, ldm_jax.commands.plan_privacy; sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


# The plan

SMALL = ['--plan', '--delta=1e-3', '--num_patients=60', '--steps=20', '--epsilon=8']


ROWS = [
  {
    'batch_size': size,
    'sampling_probability': size / 60,
    'noise_multiplier': sigma,
    'noise_to_signal': 1e3 * sigma / size,
  }
  for size, sigma in ((16, 0.8), (32, 1.1), (60, 1.6))
]


def test_the_plan_is_shown_as_a_table_and_drawn_as_a_picture(
  capsys, tmp_path, monkeypatch
):
  """As `budget` makes it; its laws are in tests/privacy/test_budget.py."""
  planned = {
    **{'epsilon': 8.0, 'delta': 1e-3, 'num_patients': 60, 'steps': 20},
    **{'num_parameters': 1, 'table': ROWS, 'suggested': ROWS[-1]},
    **{'unit': 'patient', 'relation': 'add_or_remove_one'},
  }
  lines = {
    'spent': {1.6: [(1, 2.0), (20, 8.0), (40, 12.0)]},
    'needed': {60: [(12.0, 1.2), (8.0, 1.6), (1.0, 7.0)]},
  }
  monkeypatch.setattr(budget, 'plan', lambda **_: planned)
  monkeypatch.setattr(budget, 'curves', lambda _: lines)
  path = tmp_path / 'plan.png'
  status, out, err = run(capsys, *SMALL, f'--curves={path}')
  assert (status, err) == (0, '')
  assert out.count('<- suggested') == 1
  assert 'noise-to-signal' in out
  width, height = figures.png_size(path.read_bytes())
  assert width > 1200 and height > 400
  assert json.loads(run(capsys, *SMALL, '--json')[1]) == planned


def test_a_picture_that_cannot_be_written_ends_with_status_2(capsys, tmp_path):
  status, out, err = run(capsys, *SMALL, f'--curves={tmp_path}/no/plan.png')
  assert (status, out) == (2, '')
  assert '--curves' in err
