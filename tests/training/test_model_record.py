"""What is sampled is the model that was trained, and everything says which it is."""

import csv
import importlib.util
import json
import pathlib
import shutil

import pytest

from ldm_jax import main
from ldm_jax.config.parsing import override
from ldm_jax.pipeline import runner
from ldm_jax.pipeline.run import Run
from ldm_jax.training import model_record
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
USERS = ('sample', 'counterfactual', 'evaluate', 'report')


def micro(**flags):
  spec = importlib.util.spec_from_file_location('micro', MICRO)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return override(module.get_config(), flags)


def run(work, *flags):
  return main.main([f'--config={MICRO}', f'--workdir={work}', *flags])


@pytest.fixture
def copy(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'work')


@pytest.mark.parametrize('name', USERS)
@pytest.mark.parametrize(
  ('key', 'value', 'trained'),
  [
    ('diffusion.prediction', 'epsilon', "'v'"),
    ('diffusion.schedule.num_timesteps', '40', '20'),
    ('diffusion.schedule.name', 'cosine', "'linear'"),
    ('diffusion.conditioner.num_frequencies', '5', '1'),
    ('diffusion.model.kind', 'dit', "'unet'"),
    ('diffusion.text.width', '5', '768'),
    ('autoencoder.model.out_activation', 'none', "'sigmoid'"),
    ('adapt.ema_decay', '(0.8,0.9)', '[0.9]'),
    ('adapt.pairs.use', 'True', 'False'),
    ('adapt.drift.value', '0.1', '0.0'),
  ],
)
def test_a_config_that_is_not_the_models_is_refused_with_both_values(
  finished, name, key, value, trained
):
  with pytest.raises(ValueError, match='another than the config') as refused:
    runner.check_models(name, Run(micro(**{key: value}), WorkFolder(finished)))
  for words in (f'config.{key} is', f'trained with {trained}', '--stages='):
    assert words in str(refused.value)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('diffusion.steps', '9'),
    ('diffusion.model.remat', 'True'),
    ('diffusion.learning_rate', '1.0'),
    ('adapt.privacy.epsilon', '3.0'),
    ('sample.steps', '3'),
    ('adapt.drift.sampling', 'False'),
  ],
)
def test_what_the_model_does_not_depend_on_may_differ(finished, key, value):
  config, work = micro(**{key: value}), WorkFolder(finished)
  for name in USERS:
    runner.check_models(name, Run(config, work))


def test_a_drift_of_sampling_alone_is_free(finished):
  flags = {'adapt.drift.value': '0.1', 'adapt.drift.training': 'False'}
  runner.check_models('sample', Run(micro(**flags), WorkFolder(finished)))


def test_a_wrong_process_is_refused_at_the_command_line_and_samples_stay(copy, capsys):
  before = {p: p.read_bytes() for p in (copy / 'samples').iterdir()}
  for flag in (
    'diffusion.prediction=epsilon',
    'diffusion.conditioner.num_frequencies=5',
  ):
    assert run(copy, '--stages=sample', f'--config.{flag}') == 2
    assert f'config.{flag.partition("=")[0]} is' in capsys.readouterr().err
  assert {p: p.read_bytes() for p in (copy / 'samples').iterdir()} == before


def test_adapting_a_network_of_another_process_spends_nothing(finished):
  config = micro(**{'diffusion.prediction': 'epsilon'})
  with pytest.raises(ValueError, match=r'checkpoints/diffusion.*diffusion.prediction'):
    runner.check_models('adapt', Run(config, WorkFolder(finished)))


def test_a_folder_of_an_older_version_is_taken_with_the_config_of_its_training(copy):
  for stage in model_record.SECTIONS:
    (copy / 'checkpoints' / stage / model_record.FILE).unlink()
  work = WorkFolder(copy)
  for name in USERS:
    runner.check_models(name, Run(micro(), work))
  with pytest.raises(ValueError, match=r'before models kept.*not known to fit'):
    runner.check_models(
      'sample', Run(micro(**{'diffusion.prediction': 'epsilon'}), work)
    )


def test_models_that_do_not_belong_together_are_refused(copy):
  work = WorkFolder(copy)
  done = work.read_json('checkpoints', 'autoencoder', 'done.json')
  another = {**done, 'fingerprint': 'another'}
  work.write_json(another, 'checkpoints', 'autoencoder', 'done.json')
  for name in ('diffusion', 'adapt', *USERS):
    with pytest.raises(ValueError, match=r'autoencoder was run again.*after encode'):
      runner.check_models(name, Run(micro(), work))


def test_other_attributes_than_the_models_are_refused(finished):
  work = WorkFolder(finished)
  kept = model_record.read(work, 'adapt')['schema']

  class Schema:
    names = ('A',)

    def to_config(self):
      return kept[:-1]

  with pytest.raises(ValueError, match='other attributes'):
    model_record.check_schema(work, 'adapt', Schema())


def table(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def test_tables_log_report_and_card_name_the_model(finished):
  name = table(finished / 'samples' / 'samples.csv')[0]['model']
  assert name.startswith('adapt (full, epsilon 10), sha256 ')
  rows = table(finished / 'counterfactuals' / 'counterfactuals.csv')
  assert {row['model'] for row in rows} == {name}
  log = (finished / 'log.jsonl').read_text().splitlines()
  ends = [e for e in map(json.loads, log) if e.get('event') == 'end']
  told = {e['stage']: e['model'] for e in ends if 'model' in e}
  assert told == {'sample': name, 'counterfactual': name}
  for file in ('index.html', 'model_card.md'):
    assert name in (finished / 'report' / file).read_text()


def test_without_the_private_scans_the_adapted_model_is_sampled(copy, capsys):
  """Sampling needs none of them; the model before adapting is another model."""
  before = table(copy / 'samples' / 'samples.csv')
  flags = ('--config.data.private.layout=', '--config.sample.num=2')
  assert run(copy, '--stages=sample', *flags) == 0
  after = table(copy / 'samples' / 'samples.csv')
  assert {row['model'] for row in after} == {before[0]['model']}
  capsys.readouterr()
  flags = (*flags, '--config.sample.model=diffusion')
  assert run(copy, '--stages=sample', *flags) == 0
  (name,) = {row['model'] for row in table(copy / 'samples' / 'samples.csv')}
  assert name.startswith('diffusion (public pre-training), sha256 ')
  assert name in capsys.readouterr().out


def test_weights_of_another_run_that_were_trained_otherwise_are_told(tmp_path):
  """As they are they are refused, to learn further from them is allowed."""
  spec = {'shape': [5, 16, 16], 'percentiles': [0.5, 99.5]}
  config = micro(**{'autoencoder.init': str(tmp_path)})
  settings = model_record.settings(config, 'autoencoder')
  assert model_record.check_init(config, spec) == '', 'a folder that does not say'
  work = WorkFolder(tmp_path)
  work.write_json({'spec': spec}, model_record.PREPROCESS)
  work.write_json({'settings': settings}, model_record.FILE)
  assert model_record.check_init(config, {**spec, 'percentiles': (0.5, 99.5)}) == ''
  other = {**settings, 'autoencoder.model.out_activation': 'none'}
  work.write_json({'settings': other}, model_record.FILE)
  told = model_record.check_init(config, {**spec, 'percentiles': (1.0, 99.0)})
  for words in (
    'data.preprocess.percentiles is [1.0, 99.0], theirs was [0.5, 99.5]',
    "autoencoder.model.out_activation is 'sigmoid', theirs was 'none'",
  ):
    assert words in told
  config.autoencoder.steps = 0
  with pytest.raises(ValueError, match=r'theirs was.*autoencoder\.steps=0'):
    model_record.check_init(config, spec)
