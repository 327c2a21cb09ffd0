"""Laws of the stage `prepare`: what it stores, counts and says of whom."""

import json

import pytest

from ldm_jax.config.parsing import override
from ldm_jax.data.store import store
from ldm_jax.pipeline import prepare
from ldm_jax.pipeline.run import Run
from tests import micro

FEW = {f'data.{name}.options.num_patients': 2 for name in ('public', 'private')}
FEW |= {'data.test.layout': '', 'data.measuring.layout': ''}


def begun(root, **changes):
  run = Run.open(override(micro.get_config(), {**FEW, **changes}), root)
  run.work.restart('prepare', 'a')
  return run


@pytest.fixture
def unreadable(monkeypatch):
  """Every cohort has one scan that was left out, and a warning."""
  original = store.prepare

  def prepared(root, cohort, spec, **options):
    index = original(root, cohort, spec, **options)
    name = f'scan-of-{cohort.name}'
    index['problems'].append({'id': name, 'path': name, 'reason': 'cut off'})
    return index

  monkeypatch.setattr(store, 'prepare', prepared)


def test_cohorts_are_stored_counted_and_stated(tmp_path):
  run = begun(tmp_path)
  summary = prepare.prepare(run)
  expected = {'patients': 2}
  assert summary == {'public': {**expected, 'left_out': 0}, 'private': expected}
  assert {name: split.num_patients for name, split in run.prepared.items()} == {
    'public': 2,
    'private': 2,
  }
  stated = run.work.read_json('privacy.json')
  assert stated['releases'] == [] and stated['num_patients'] == 2
  assert not (tmp_path / 'privacy.json').exists(), 'it lies beside until the end'
  run.work.finish('prepare', 'a')
  assert json.loads((tmp_path / 'privacy.json').read_text()) == stated


def test_a_scan_of_a_private_patient_is_named_in_no_log(tmp_path, unreadable, capsys):
  run = begun(tmp_path)
  summary = prepare.prepare(run)
  assert {name: found.get('left_out') for name, found in summary.items()} == {
    'public': 1,
    'private': None,
  }
  log = (tmp_path / 'log.jsonl').read_text()
  assert 'scan-of-public' in log and 'scan-of-private' not in log
  printed = capsys.readouterr()
  assert 'left out scan-of-public: cut off' in printed.out
  assert 'prepare private: WARNING left out, notes: see ' in printed.out
  assert 'scan-of-private' not in printed.out + printed.err
  notes = tmp_path / 'store' / 'notes-private.txt'
  assert str(notes) in printed.out
  assert 'left out: scan-of-private: scan-of-private: cut off' in notes.read_text()


def test_without_a_private_cohort_there_is_no_statement(tmp_path):
  run = begun(tmp_path, **{'data.private.layout': ''})
  assert list(prepare.prepare(run)) == ['public']
  assert run.work.read_json('privacy.json') is None


def test_a_note_is_printed_once_and_the_last_line_says_what_was_done(
  tmp_path, monkeypatch, capsys
):
  original = store.prepare

  def prepared(root, cohort, spec, **options):
    index = original(root, cohort, spec, **options)
    index['notes'] = ['the table has a blank line', *(f'note {n}' for n in range(9))]
    return index

  monkeypatch.setattr(store, 'prepare', prepared)
  both = {
    'data.private.layout': '',
    'data.measuring.layout': 'phantom_cardiac',
    'data.measuring.part': '',
  }
  run = begun(tmp_path, **both)
  with run.config.data.measuring.options.unlocked():
    options = {**run.config.data.public.options, 'name': 'measuring', 'seed': 2}
    run.config.data.measuring.options.update(options)
  prepare.prepare(run)
  lines = capsys.readouterr().out.splitlines()
  assert sum('blank line' in line for line in lines) == 1
  assert sum(': note ' in line for line in lines) == prepare.NUM_SHOWN - 1
  assert any('and 5 more like these' in line for line in lines)
  store_path = tmp_path / 'store'
  assert lines[-1].startswith('prepare: public 2 patients, ')
  assert lines[-1].endswith(f'5 x 16 x 16 voxels each, in {store_path}')
