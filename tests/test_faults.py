"""Whatever ends a stage, the last finished result of each is there and usable."""

import errno
import hashlib
import pathlib
import shutil

import pytest

from ldm_jax import interruption, main, replace_results
from ldm_jax.config.parsing import override
from ldm_jax.pipeline import runner
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder
from tests import micro

MICRO = pathlib.Path(__file__).with_name('micro.py')


class Killed(BaseException):
  """What no code of a stage answers."""


FAULTS = {
  'refused': ValueError('refused'),
  'out of memory': RuntimeError('RESOURCE_EXHAUSTED: Out of memory'),
  'full disk': OSError(errno.ENOSPC, 'No space left on device'),
  'SIGTERM': interruption.Interrupted(15),
  'killed': Killed(),
}
# Stage -> a change of the config that makes it run again. `report` reads none.
CHANGES = {
  'prepare': {'data.max_bad_fraction': 0.5},
  'autoencoder': {'autoencoder.steps': 7},
  'encode': {'encode.std': 'channel'},
  'diffusion': {'diffusion.steps': 7},
  'adapt': {'adapt.learning_rate': 1e-5, 'ledger.total_epsilon': 99.0},
  'sample': {'sample.num': 3},
  'counterfactual': {'counterfactual.num': 1},
  'evaluate': {'evaluate.num_bootstrap': 9},
}
# Refused before anything is written; more are in test_untouched.py.
REFUSED = (
  ('sample', 'data.schema=({"name":"A"},)'),
  ('sample', 'data.preprocess.shape=(5,16,8)'),
  ('counterfactual', 'counterfactual.source=/nope'),
)


@pytest.fixture(scope='module')
def work(finished, tmp_path_factory):
  """One copy for all: no fault changes it."""
  return shutil.copytree(finished, tmp_path_factory.mktemp('faults') / 'work')


def visible(root):
  """{path: hash} of what is in the folder, without logs and what is not finished."""
  return {
    path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in root.rglob('*')
    if path.is_file()
    and path.name != 'log.jsonl'
    and not any(part.endswith(replace_results.NEW) for part in path.parts)
    and 'tensorboard' not in path.parts
  }


def failing(name, fault):
  """The stage: it writes over everything that it leaves, then fails."""

  def function(run):
    outputs = replace_results.OUTPUTS.get(name, ())
    for output in (*outputs, f'checkpoints/{name}/half'):
      is_folder = '.' not in output
      run.work.write_text('half', *output.split('/'), *(['x'] if is_folder else []))
    raise fault

  function.__name__ = name
  return runner.stage(function)


@pytest.mark.parametrize('fault', FAULTS)
def test_no_fault_in_any_stage_touches_what_was_finished(work, fault):
  before = visible(work)
  assert len(before) > 50
  for name, changes in CHANGES.items():
    config = override(micro.get_config(), changes)
    with pytest.raises((type(FAULTS[fault]), MemoryError)):
      failing(name, FAULTS[fault])(config, work)
    assert visible(work) == before, name


def test_after_all_faults_every_stage_is_up_to_date_and_usable(work, capsys):
  assert main.main([f'--config={MICRO}', f'--workdir={work}']) == 0
  said = capsys.readouterr().out.splitlines()
  assert [line for line in said if 'up to date' in line] == [
    f'{name}: up to date' for name in runner.DEFAULT
  ]
  assert Run(micro.get_config(), WorkFolder(work)).system.params


@pytest.mark.parametrize(('name', 'flag'), REFUSED, ids=[flag for _, flag in REFUSED])
def test_what_is_refused_leaves_everything(work, capsys, name, flag):
  before = visible(work)
  flags = [f'--workdir={work}', f'--stages={name}', f'--config.{flag}']
  assert main.main([f'--config={MICRO}', *flags]) == 2, capsys.readouterr().err
  said = capsys.readouterr().err
  assert 'Traceback' not in said and len(said) < 2000
  assert visible(work) == before


@pytest.fixture
def copy(work, tmp_path):
  unfinished = shutil.ignore_patterns(f'*{replace_results.NEW}')
  return shutil.copytree(work, tmp_path / 'work', ignore=unfinished)


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def run(work, *flags):
  return main.main([f'--config={MICRO}', f'--workdir={work}', *flags])


def test_a_stage_that_is_up_to_date_mends_what_is_damaged(copy, capsys):
  """The model is not encoded, drawn or trained again: only the damaged stage runs."""
  latents = sorted((copy / 'store' / 'latents').iterdir())
  whole = {path: path.read_bytes() for path in latents}
  for path in latents:
    cut(path)
  assert run(copy, '--stages=diffusion', '--config.diffusion.steps=7') == 2
  said = capsys.readouterr().err
  assert str(copy / 'store' / 'latents') in said and '--stages=encode' in said
  statistics = copy / 'checkpoints' / 'encode' / 'latent_statistics.json'
  statistics.write_text('')
  volume = next((copy / 'store' / 'volumes').iterdir())
  cut(volume)
  (copy / 'metrics.json').unlink()
  assert run(copy) == 0
  said = capsys.readouterr().out
  for name, path in (('prepare', volume), ('encode', statistics)):
    assert f'{name}: {path} is missing or damaged' in said
  assert f'{copy / "metrics.json"} is missing' in said
  assert 'diffusion: up to date' in said and 'adapt: up to date' in said
  assert {path: path.read_bytes() for path in latents} == whole
  assert run(copy) == 0
  assert 'missing' not in capsys.readouterr().out


def test_a_damaged_model_is_written_again_from_its_state_and_spends_nothing(
  copy, capsys
):
  ledger = copy / 'store' / 'ledger-private.jsonl'
  before, spent = visible(copy / 'samples'), ledger.read_bytes()
  for name in ('diffusion', 'adapt'):
    folder = copy / 'checkpoints' / name
    files = [path for path in (folder / 'params').rglob('*') if path.is_file()]
    cut(max(files, key=lambda path: path.stat().st_size))
    assert run(copy, '--stages=sample', '--config.sample.seed=5') == 2
    said = capsys.readouterr().err
    assert f'Delete {folder}/params and {folder}/done.json' in said
    shutil.rmtree(folder / 'params')
    (folder / 'done.json').unlink()
    assert run(copy, f'--stages={name}') == 0
    assert 'Traceback' not in capsys.readouterr().err
  assert ledger.read_bytes() == spent
  (copy / 'checkpoints' / 'sample' / 'done.json').unlink()
  assert run(copy, '--stages=sample') == 0
  assert visible(copy / 'samples') == before, 'another model was drawn from'


@pytest.mark.parametrize('text', ['[]', '{"version": 99}', '{'])
@pytest.mark.parametrize('name', ['store/public.json', 'checkpoints/prepare/done.json'])
def test_prepare_makes_its_damaged_files_again(copy, name, text, capsys):
  whole = (copy / name).read_bytes()
  (copy / name).write_text(text)
  assert run(copy, '--stages=prepare,autoencoder') == 0
  assert 'prepare: up to date' not in capsys.readouterr().out
  assert (copy / name).read_bytes() == whole


def test_a_damaged_mark_is_named(copy, capsys):
  (copy / 'checkpoints' / 'diffusion' / 'done.json').write_text('')
  assert run(copy) == 2
  said = capsys.readouterr().err
  assert 'done.json is damaged (it is empty)' in said
  (copy / 'checkpoints' / 'diffusion' / 'done.json').unlink()
  assert run(copy) == 0
  assert 'adapt: up to date' in capsys.readouterr().out


def test_an_edited_table_of_requests_is_drawn_again(copy, tmp_path, capsys):
  table = tmp_path / 'mine.csv'
  flags = ('--stages=sample', f'--config.sample.requests={table}')
  for number, volume in enumerate((150, 160, 160)):
    table.write_text(f'LVEDV,LVESV\n{volume},60\n')
    assert run(copy, *flags) == 0
    assert ('up to date' in capsys.readouterr().out) == (number == 2)
