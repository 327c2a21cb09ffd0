"""Laws of `stages.run`: which stages, in which order, and what a refusal leaves."""

import inspect
import json

import pytest

from ldm_jax import stages
from ldm_jax.config import parsing
from ldm_jax.pipeline import runner
from ldm_jax.workfolder import WorkFolder
from tests import micro


@pytest.fixture
def called(monkeypatch):
  """Names of the stages that were called, none of which does anything."""
  names = []
  for name in stages.STAGES:
    monkeypatch.setitem(
      stages.STAGES, name, lambda config, workdir, name=name: names.append(name)
    )
  return names


def test_every_name_has_its_function_of_config_and_folder():
  assert set(stages.STAGES) == {'doctor', *runner.STAGES, 'record', 'audit'}
  for name, function in stages.STAGES.items():
    assert function is getattr(stages, name)
    assert list(inspect.signature(function).parameters) == ['config', 'workdir']
    assert function.__doc__.endswith('.')


def test_named_stages_run_in_the_order_of_the_pipeline(called, tmp_path):
  stages.run(micro.get_config(), tmp_path, 'report,doctor,sample')
  assert called == ['doctor', 'sample', 'report']


def test_after_prepare_all_later_stages_are_checked_before_one_trains(
  called, tmp_path, monkeypatch
):
  checked = []
  monkeypatch.setattr(
    runner.Stage, 'check', lambda self, run: checked.append((self.name, tuple(called)))
  )
  stages.run(micro.get_config(), tmp_path, 'prepare,diffusion,adapt,audit')
  before = ('prepare',)
  assert checked == [(name, before) for name in ('prepare', 'diffusion', 'adapt')]
  assert called == ['prepare', 'diffusion', 'adapt', 'audit']


def test_the_config_of_what_is_there_stays_when_a_command_is_refused(
  called, tmp_path, monkeypatch
):
  kept = lambda: json.loads((tmp_path / 'config.json').read_text())['seed']
  config = micro.get_config()
  stages.run(config, tmp_path, 'sample')

  def refuse(config, workdir):
    raise ValueError('refused')

  with monkeypatch.context() as patch:
    patch.setitem(stages.STAGES, 'sample', refuse)
    with pytest.raises(ValueError, match='refused'):
      stages.run(parsing.override(config, {'seed': 5}), tmp_path, 'sample')
  assert kept() == 0
  stages.run(parsing.override(config, {'seed': 5}), tmp_path, 'sample')
  assert kept() == 5


def test_a_full_run_without_the_private_cohort_keeps_the_adapted_model(
  called, tmp_path
):
  work = WorkFolder(tmp_path)
  work.restart('adapt', 'a')
  work.write_text('x', 'checkpoints', 'adapt', 'params')
  work.finish('adapt', 'a', adapted=True)
  config = parsing.override(micro.get_config(), {'data.private.layout': ''})
  with pytest.raises(ValueError, match=r'data\.private is empty'):
    stages.run(config, tmp_path)
  assert not called and (tmp_path / 'checkpoints' / 'adapt' / 'params').is_file()
  stages.run(config, tmp_path, 'sample')
  assert called == ['sample']
