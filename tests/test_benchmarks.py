"""The benchmarks run, agree with MONAI and print one line that says what they must."""

import json
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'benchmarks'


def run(name, *flags):
  command = [sys.executable, FOLDER / f'{name}.py', '--quick', '--repeats=1', *flags]
  return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
  ('name', 'case'), [('model_step', 'autoencoder_tiny'), ('sampling', 'ddim_tiny')]
)
def test_a_benchmark_prints_one_line_with_both_sides(name, case):
  pytest.importorskip('monai')
  answer = run(name, f'--cases={case}')
  assert answer.returncode == 0, answer.stderr
  (line,) = answer.stdout.splitlines()
  found = json.loads(line)
  figures = found['cases'][case]
  ratio = figures['peer_seconds'] / figures['ours_seconds']
  assert found['worst_case'] == case and found['benchmark'] == name
  assert found['speed_ratio_to_peer'] == pytest.approx(ratio, rel=0.1)
  assert figures['gflop'] > 0
  for side in ('ours', 'peer'):
    assert figures[f'{side}_peak_mib'] >= figures[f'{side}_running_peak_mib'] > 0


def test_an_unknown_case_is_refused_with_the_known_ones():
  answer = run('sampling', '--cases=none')
  assert answer.returncode == 2
  assert 'decode_tiny' in answer.stderr.splitlines()[-1]
