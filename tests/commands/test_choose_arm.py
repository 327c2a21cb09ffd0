"""Laws of the runs of a private choice: drawn once, secret, the losers are gone.

With `launch/sweep.py` around them they are in tests/test_sweep.py.
"""

import json
import os
import time

import pytest

from ldm_jax import damaged_files
from ldm_jax.commands import choose_arm
from ldm_jax.privacy import private_choice

ARMS = {'a': {'adapt.learning_rate': 1e-3}, 'b': {'adapt.learning_rate': 2e-3}}


@pytest.fixture
def drawn(monkeypatch):
  """Three runs: a, b, b."""
  monkeypatch.setattr(private_choice, 'draw_arms', lambda names, mean: ['a', 'b', 'b'])


def train(scores):
  """A stand-in for training, whose runs have these scores in turn."""
  left = iter(scores)

  def run(folder, arm):
    adapt = folder / 'checkpoints' / 'adapt'
    adapt.mkdir(parents=True)
    (adapt / 'noise_key').write_text('key')
    (adapt / 'started.json').write_text(json.dumps({'run': folder.name}))
    (folder / 'metrics.json').write_text(json.dumps({'score': next(left), 'arm': arm}))

  return run


def test_the_runs_are_drawn_once_and_only_their_owner_reads_them(tmp_path, drawn):
  state = choose_arm.begin(tmp_path, ARMS, 3.0)
  assert choose_arm.begin(tmp_path, ARMS, 3.0) == state
  folder = tmp_path / choose_arm.FOLDER
  assert folder.stat().st_mode & 0o777 == 0o700
  assert (folder / choose_arm.FILE).stat().st_mode & 0o777 == 0o600
  with pytest.raises(ValueError, match='other arms'):
    choose_arm.begin(tmp_path, {'a': ARMS['a']}, 3.0)


@pytest.mark.parametrize(
  ('scores', 'name', 'best'),
  [([1, 3, 2], 'score', 1), ([1, 3, 2], '-score', 0), ([None, None, -9.0], 'score', 2)],
)
def test_the_best_run_is_left_and_no_trace_of_the_others(
  tmp_path, drawn, scores, name, best
):
  state = choose_arm.begin(tmp_path, ARMS, 3.0)
  names = [run for _, run, _ in state['runs']]
  ledger = tmp_path / 'ledger.jsonl'
  found = choose_arm.choose(tmp_path, state, train(scores), name, ledger)
  assert found['run'] == names[best]
  assert [path.name for path in (tmp_path / choose_arm.FOLDER).iterdir()] == [
    choose_arm.FILE
  ]
  assert private_choice.decided(ledger, state['name']) == names[best]
  choose_arm.finish(tmp_path)
  assert not (tmp_path / choose_arm.FOLDER).exists()
  left = (tmp_path / choose_arm.CHOSEN).rglob('*')
  text = ' '.join(path.read_text() for path in left if path.is_file())
  assert not any(other in text for other in names if other != names[best])
  with pytest.raises(ValueError, match='another WORKDIR'):
    choose_arm.begin(tmp_path, ARMS, 3.0)


def test_equal_scores_are_decided_by_a_number_that_was_drawn_before(tmp_path, drawn):
  state = choose_arm.begin(tmp_path, ARMS, 3.0)
  found = choose_arm.choose(tmp_path, state, train([1, 1, 1]), 'score', tmp_path / 'l')
  assert found['tie'] == max(tie for *_, tie in state['runs'])


def test_no_file_of_the_chosen_run_tells_when_it_was_trained(tmp_path, drawn):
  """Between its training and its end lie the runs that were made after it."""
  metadata = '{"init_timestamp_nsecs": 1796063363581267376, "metrics": {}}'

  def run(folder, arm):
    train([1])(folder, arm)
    saved = folder / 'checkpoints' / 'adapt' / 'params'
    saved.mkdir()
    (saved / '_CHECKPOINT_METADATA').write_text(metadata)
    damaged_files.note_files(saved, saved.with_name('params.files.json'), hashed=True)
    for path in folder.rglob('*'):
      os.utime(path, (1, 1))

  began = time.time()
  state = choose_arm.begin(tmp_path, ARMS, 3.0)
  choose_arm.choose(tmp_path, state, run, 'score', tmp_path / 'ledger')
  choose_arm.finish(tmp_path)
  chosen = tmp_path / choose_arm.CHOSEN
  assert len({path.stat().st_mtime for path in (chosen, *chosen.rglob('*'))}) == 1
  assert chosen.stat().st_mtime >= began - 1
  saved = chosen / 'checkpoints' / 'adapt' / 'params'
  text = (saved / '_CHECKPOINT_METADATA').read_text()
  assert '1796' not in text and json.loads(text)['metrics'] == {}
  damaged_files.check_files(saved, saved.with_name('params.files.json'))
