"""Laws of the work folder: where a running stage writes, and what a mark depends on."""

import json

import pytest

from ldm_jax import workfolder
from ldm_jax.config.parsing import override
from ldm_jax.workfolder import WorkFolder, fingerprint
from tests import micro


def test_a_running_stage_writes_beside_and_reads_its_own_then_replaces(tmp_path):
  work = WorkFolder(tmp_path)
  figures = {text: {'frechet': text} for text in ('old', 'new')}
  for text, metrics in figures.items():
    work.restart('evaluate', text)
    work.write_json(metrics, 'metrics.json')
    if text == 'new':
      assert json.loads((tmp_path / 'metrics.json').read_text()) == figures['old']
      assert WorkFolder(tmp_path).read_json('metrics.json') == figures['old']
    assert work.read_json('metrics.json') == metrics
    work.finish('evaluate', text)
  assert json.loads((tmp_path / 'metrics.json').read_text()) == figures['new']


def test_an_equal_run_resumes_under_its_name_and_another_begins_anew(tmp_path):
  work = WorkFolder(tmp_path)
  name = lambda: work.read_json('checkpoints', 'adapt', 'started.json')['run']
  work.restart('adapt', 'a')
  first = name()
  work.write_text('kept', 'checkpoints', 'adapt', 'state')
  assert WorkFolder(tmp_path).interrupted('adapt') == 'a'
  work.restart('adapt', 'a')
  assert name() == first and work.found('checkpoints', 'adapt', 'state').is_file()
  work.restart('adapt', 'b')
  assert name() != first and not work.found('checkpoints', 'adapt', 'state').exists()


def test_a_mark_follows_the_sections_that_are_named_and_nothing_else():
  config = micro.get_config()
  mark = lambda sections, **changes: fingerprint(
    override(micro.get_config(), changes), sections, {}
  )
  assert mark(('sample',)) == fingerprint(config, ('sample',), {})
  assert mark(('sample',)) != mark(('sample',), **{'sample.num': 9})
  assert mark(('sample',)) == mark(('sample',), **{'adapt.steps': 9})
  assert mark(('sample.num',)) == mark(('sample.num',), **{'sample.steps': 2})
  left_out = ('sample', '-sample.num')
  assert mark(left_out) == mark(left_out, **{'sample.num': 9})
  assert mark(('sample',)) != fingerprint(config, ('sample',), {'adapt': 'x'})


def test_a_line_of_the_log_that_was_cut_is_passed_over(tmp_path):
  work = WorkFolder(tmp_path)
  work.log('sample', event='start')
  with open(tmp_path / 'log.jsonl', 'a') as file:
    file.write('{"time": 1, "sta')
  assert [event['event'] for event in work.events()] == ['start']


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'file.*cannot be written.*--workdir'):
    WorkFolder(tmp_path / 'file')
  with pytest.raises(ValueError, match='--workdir'):
    WorkFolder('gs://bucket/work')


def test_a_bar_that_must_not_count_shows_tenths_and_of_few_units_nothing(capfd):
  for total in (7, 43):
    with workfolder.progress_bar('encode private', total, 'volume', False) as advance:
      for done in range(total + 1):
        advance(done)
    printed = capfd.readouterr().err
    assert f'/{total}' not in printed and ('10/10' in printed) == (total > 9)


def test_curves_are_on_the_disk_when_a_stage_has_ended(tmp_path):
  work = WorkFolder(tmp_path)
  work.log('adapt', step=1, rate=0.5)
  work.log('adapt', event='end')
  (board,) = (tmp_path / 'tensorboard' / 'adapt').iterdir()
  assert b'rate' in board.read_bytes()
