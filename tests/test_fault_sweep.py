"""Laws of benchmarks/fault_sweep.py: what it takes for a fault, on stand-ins."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

PATH = pathlib.Path(__file__).resolve().parent.parent / 'benchmarks' / 'fault_sweep.py'
SPEC = importlib.util.spec_from_file_location('fault_sweep', PATH)
fault_sweep = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fault_sweep)

SENTENCE = 'ldm-jax: process 1 on h has not been heard of for 50 seconds'


@pytest.fixture
def ended(tmp_path):
  """(script of process 0) -> problems, where process 1 was killed."""

  def end(script, seconds=20.0):
    output, processes = tmp_path / 'output', []
    for number, code in enumerate((script, 'import time; time.sleep(60)')):
      with open(f'{output}.{number}', 'w') as file:
        command = [sys.executable, '-c', code]
        processes.append(subprocess.Popen(command, stdout=file, stderr=file))
    processes[1].kill()
    return fault_sweep.ends(processes, 1, seconds, output)

  return end


def test_one_sentence_and_a_status_that_asks_for_a_restart_are_no_fault(ended):
  assert ended(f'print("{SENTENCE}"); raise SystemExit(75)') == []


@pytest.mark.parametrize(
  ('script', 'told'),
  [
    (f'print("{SENTENCE}"); raise SystemExit(1)', 'ended with 1'),
    ('raise SystemExit(75)', 'said 0 sentences'),
    (f'print("{SENTENCE}\\n{SENTENCE}"); raise SystemExit(75)', 'said 2 sentences'),
    (f'print("{SENTENCE}\\nTraceback"); raise SystemExit(75)', 'traceback'),
  ],
)
def test_another_end_is_a_fault(ended, script, told):
  (problem,) = ended(script)
  assert told in problem


def test_a_process_that_fails_before_anything_is_killed_is_a_fault(tmp_path):
  command = [sys.executable, '-c', 'print("why"); raise SystemExit(1)']
  with open(tmp_path / 'output.0', 'w') as file:
    failed = subprocess.Popen(command, stdout=file)
  failed.wait()
  (problem,) = fault_sweep.already_ended([failed], tmp_path / 'output')
  assert 'by itself with 1' in problem and 'why' in problem


def test_a_moment_may_be_counted_from_when_the_run_has_logged_something(tmp_path):
  log = tmp_path / 'log.jsonl'
  code = (
    f'import time; time.sleep(0.5); open({str(log)!r}, "w").write("x"); time.sleep(60)'
  )
  process = subprocess.Popen([sys.executable, '-c', code])
  assert not fault_sweep.survives([process], 0.01, log)
  assert log.is_file() and process.poll() is None
  process.kill()
  assert not fault_sweep.survives([process], 20.0, log)


def test_a_stage_is_hit_after_it_has_begun_again_however_early(tmp_path):
  log = tmp_path / 'log.jsonl'
  line = '{"time": %d, "stage": "encode", "event": "%s"}\n'
  log.write_text(line % (2, 'start') + line % (5, 'end'))
  reference = fault_sweep.targets(tmp_path, 3)
  assert reference == [('encode', 3)] * 3
  more = line % (9, 'start')
  code = f'import time; time.sleep(0.5); open({str(log)!r}, "a").write({more!r})'
  process = subprocess.Popen([sys.executable, '-c', f'{code}; time.sleep(60)'])
  # The file is buffered until it is closed, which CPython does at once.
  assert not fault_sweep.survives([process], 0.0, log, 'encode')
  assert log.read_text().endswith(more) and process.poll() is None
  process.kill()


def test_what_has_ended_is_no_target_any_more(tmp_path):
  assert not fault_sweep.has_ended(tmp_path, 'encode')
  done = tmp_path / 'checkpoints' / 'encode' / 'done.json'
  done.parent.mkdir(parents=True)
  done.touch()
  assert fault_sweep.has_ended(tmp_path, 'encode')


def test_who_does_not_end_is_ended_and_told(ended):
  (problem,) = ended('import time; time.sleep(60)', seconds=0.5)
  assert 'was still there' in problem


def test_a_ledger_that_lost_a_line_and_a_stage_that_was_undone_are_faults(tmp_path):
  done = tmp_path / 'checkpoints' / 'prepare' / 'done.json'
  done.parent.mkdir(parents=True)
  done.write_text('{}')
  ledger = tmp_path / fault_sweep.LEDGER
  ledger.parent.mkdir()
  lines = [json.dumps({'cohort': 'c'}), json.dumps({'steps': 3})]
  ledger.write_text('\n'.join(lines) + '\n')
  before = fault_sweep.state(tmp_path)
  assert fault_sweep.kept(tmp_path, before) == []
  ledger.write_text('\n'.join([*lines, lines[1]]) + '\n')
  assert '2 releases' in fault_sweep.kept(tmp_path, before)[0]
  ledger.write_text(lines[0] + '\n')
  done.unlink()
  first, second = fault_sweep.kept(tmp_path, before)
  assert 'ledger' in first and 'prepare' in second


def test_the_stage_that_was_running_is_read_from_a_log_that_a_kill_has_cut(tmp_path):
  assert fault_sweep.stage_of(tmp_path) == 'start'
  lines = ['{"stage": "prepare"}', '{"stage": "adapt"}', '{"sta']
  (tmp_path / 'log.jsonl').write_text('\n'.join(lines))
  assert fault_sweep.stage_of(tmp_path) == 'adapt'
