"""Laws of the table of stages: its order, what runs again, what is checked when."""

import dataclasses

import pytest

from ldm_jax import replace_results
from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.pipeline import runner
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder


def opened(root, **changes):
  return Run(parsing.override(defaults(), changes), WorkFolder(root))


def finish_all(run):
  for name in runner.STAGES:
    mark = runner.planned(name, run) or 'prepared'
    run.work.restart(name, mark)
    run.work.finish(name, mark)


def test_the_table_has_every_stage_after_those_that_it_builds_on():
  seen = set()
  for name, stage in runner.STAGES.items():
    assert stage.name == name and set(stage.after) <= seen
    seen.add(name)


def test_the_table_reads_sections_that_a_config_has():
  keys = {**parsing.flatten(defaults()), 'seed': 0}
  for stage in runner.STAGES.values():
    for section in stage.reads:
      assert any(f'{key}.'.startswith(f'{section}.') for key in keys), section


def test_no_two_stages_leave_the_same_file():
  left = [path for stage in runner.STAGES.values() for path in stage.leaves]
  # privacy.json is begun by prepare; adapt rewrites it from the ledger.
  assert len(left) == len(set(left))
  assert set(replace_results.OUTPUTS) <= set(runner.STAGES)


def test_chosen_stages_are_in_the_order_of_the_pipeline():
  assert runner.chosen('sample,doctor,prepare') == ['doctor', 'prepare', 'sample']
  assert runner.chosen('') == [name for name in runner.STAGES if name != 'export']
  with pytest.raises(ValueError, match=r'names train; stages are prepare,'):
    runner.chosen('train,sample')


def test_a_change_reruns_the_stage_that_reads_it_and_all_that_build_on_it(tmp_path):
  run = opened(tmp_path)
  finish_all(run)
  for changes, fresh in (
    ({}, []),
    ({'evaluate.num_bootstrap': 3}, ['evaluate', 'report']),
    ({'sample.num': 3}, ['sample', 'evaluate', 'report', 'export']),
    ({'encode.std': 'channel'}, list(runner.STAGES)[2:]),
    ({'run.log_every': 7}, []),
  ):
    later = opened(tmp_path, **changes)
    found = [name for name in runner.STAGES if runner.will_start_anew(name, later)]
    assert found == fresh, changes


def test_checks_of_a_new_run_are_not_made_where_one_resumes(tmp_path):
  run, made = opened(tmp_path), []
  finish_all(run)
  stage = dataclasses.replace(
    runner.STAGES['adapt'],
    checks=(lambda run: made.append('always'),),
    checks_if_new=(lambda run: made.append('new'),),
  )
  later = opened(tmp_path, **{'adapt.steps': 3})
  stage.check(later)
  assert made == ['always', 'new']
  later.work.restart('adapt', runner.planned('adapt', later))
  made.clear()
  stage.check(opened(tmp_path, **{'adapt.steps': 3}))
  assert made == ['always']


def test_a_stage_is_called_once_per_inputs_and_refused_before_it_writes(
  tmp_path, monkeypatch, capsys
):
  calls, root = [], tmp_path / 'work'

  def evaluate(run):
    """Says what it does."""
    calls.append(run.work.read_json('checkpoints', 'evaluate', 'done.json'))
    return {'figures': 1}

  stage, config = runner.stage(evaluate), defaults()
  monkeypatch.setattr(runner, 'check_models', lambda *_: None)
  with pytest.raises(ValueError, match=r"'sample' has not been run"):
    stage(config, root)
  finish_all(Run(config, WorkFolder(root)))
  stage(config, root)
  assert capsys.readouterr().out == 'evaluate: up to date\n' and not calls
  changed = parsing.override(config, {'sample.num': 3})
  work = WorkFolder(root)
  work.restart('sample', 'another')
  work.finish('sample', 'another')
  stage(changed, root)
  assert calls == [None], 'it runs beside what it replaces'
  done = work.read_json('checkpoints', 'evaluate', 'done.json')
  assert done['figures'] == 1 and done['built_on']['sample'] == 'another'
  assert [event['event'] for event in work.events()] == ['start', 'end']
  assert stage.__doc__ == 'Says what it does.' and stage.__name__ == 'evaluate'
