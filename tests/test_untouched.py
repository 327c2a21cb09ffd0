"""A stage that fails leaves everything as it was, and what was finished is finished.

The law holds for every stage and for every reason: each is run to its last moment and
stopped there, and again for what refuses it. The folder is the session's `finished`.
"""

import json
import pathlib
import shutil

import pytest

from ldm_jax import main, replace_results, workfolder
from ldm_jax.pipeline.runner import DEFAULT as STAGES
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).with_name('micro.py')
# Stages that train are stopped where training begins: all they do is in checkpoints.
TRAINS = ('autoencoder', 'diffusion', 'adapt')
# What makes them differ from the finished run, beside the version of the format.
FLAGS = {
  'prepare': ('--config.data.preprocess.percentiles=(2.0,98.0)',),
  'encode': ('--config.encode.std=channel',),
  'adapt': ('--config.ledger.total_epsilon=99',),
  'sample': ('--config.sample.num=2', '--config.sample.sweep=()'),
  'counterfactual': ('--config.counterfactual.num=1',),
  'evaluate': ('--config.evaluate.only=("ms_ssim",)',),
}
LOGS = ('log.jsonl', 'tensorboard')
# A release that was recorded stays recorded, whatever becomes of the run.
BOOKS = ('store/ledger-private.jsonl', 'privacy.json')


def run(work, *flags):
  return main.main([f'--config={MICRO}', f'--workdir={work}', *flags])


def contents(work, but=()):
  """{path: bytes} of all that is not a log, nor a run that has not finished."""
  return {
    str(path.relative_to(work)): path.read_bytes()
    for path in sorted(work.rglob('*'))
    if path.is_file()
    and not str(path.relative_to(work)).startswith((*LOGS, *but))
    and f'{replace_results.NEW}/' not in str(path)
  }


def assert_untouched(work, before, but=()):
  after = contents(work, but)
  assert {path: after.get(path) for path in before} == before
  added = {path for path in set(after) - set(before) if 'store/' not in path}
  assert not added


@pytest.fixture(scope='module')
def work(finished, tmp_path_factory):
  """A copy of the finished folder; every test must leave it as it was."""
  return shutil.copytree(finished, tmp_path_factory.mktemp('untouched') / 'work')


@pytest.fixture(autouse=True)
def original_is_up_to_date(work, capsys):
  yield
  capsys.readouterr()
  assert run(work) == 0
  printed = capsys.readouterr().out.splitlines()
  assert printed[:-1] == [f'{stage}: up to date' for stage in STAGES]


@pytest.mark.parametrize('stage', STAGES)
def test_a_stage_that_fails_at_its_last_moment_changes_nothing(
  work, stage, monkeypatch, capsys
):
  reached = []

  def stopped(self, *args, **kwargs):
    reached.append(stage)
    raise RuntimeError('stopped here')

  but = BOOKS if stage == 'adapt' else ()
  before = contents(work, but)
  with monkeypatch.context() as patch:
    patch.setattr(workfolder, 'FORMAT', 'another')  # so that every stage runs again
    if stage in TRAINS:
      patch.setattr('ldm_jax.training.loop.train', stopped)
    else:
      patch.setattr(WorkFolder, 'finish', stopped)
    assert run(work, f'--stages={stage}', *FLAGS.get(stage, ())) == 1
  assert 'stopped here' in capsys.readouterr().err
  assert reached, 'the stage was refused before it did anything'
  assert_untouched(work, before, but)
  if stage == 'adapt':
    stated = json.loads((work / 'privacy.json').read_text())
    assert len(stated['releases']) == 2, 'what was recorded is spent'


@pytest.mark.parametrize(
  ('stage', 'flag', 'words'),
  [
    ('adapt', 'adapt.learning_rate=1e-3', 'have spent epsilon'),
    ('adapt', 'adapt.privacy.delta=0.5', 'delta'),
    ('adapt', 'adapt.privacy.batch_size=7', 'batch_size'),
    ('autoencoder', 'autoencoder.init=/nope', 'no folder params'),
    ('diffusion', 'diffusion.init=/nope', 'no folder params'),
    ('diffusion', 'autoencoder.model.latent_channels=3', 'trained with 2'),
    ('sample', 'sample.requests=mine.csv', 'mine.csv'),
    ('counterfactual', 'counterfactual.set.LVEDW=+9', 'LVEDW'),
  ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
  work, stage, flag, words, capsys
):
  before = contents(work)
  assert run(work, f'--stages={stage}', f'--config.{flag}') == 2
  assert words in capsys.readouterr().err
  assert_untouched(work, before)
