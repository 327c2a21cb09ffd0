"""Laws of configs/folder.py: who is public is said, a lot is a demonstration."""

import json
import pathlib
import shutil
import types

import nibabel as nib
import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.config import checks, parsing, presets
from ldm_jax.config.defaults import defaults
from ldm_jax.data import cohorts_of_config, demonstration_split
from ldm_jax.report import (
  autoencoder_page,
  content,
  index_page,
  model_card,
  sweep_table,
)
from ldm_jax.report.privacy_statement import statement
from ldm_jax.training import private_run

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATTRIBUTES = 'attributes=volume:0:3000;age:20:90;sex:F|M,shape=8x8x8,spacing=4x4x4'
WAYS = ('public=FOLDER', 'cohort=COLUMN', 'public=none', 'split=demo')


def write_scans(root, num=10, first=0, cohort=None):
  """A folder of small scans with a table of semicolons and decimal commas."""
  root.mkdir()
  header = ['participant_id', 'volume', 'age', 'sex', *(['cohort'] if cohort else ())]
  lines = [';'.join(header)]
  for number in range(first, first + num):
    voxels = np.random.default_rng(number).integers(1, 99, (8, 8, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / f'P{number}.nii.gz')
    cells = [f'P{number}', f'{1000 + number},25', f'{30 + number},5', 'FM'[number % 2]]
    lines.append(';'.join([*cells, *([cohort(number)] if cohort else ())]))
  (root / 'participants.csv').write_text('\r\n'.join(lines) + '\r\n')
  return root


@pytest.fixture(scope='module')
def scans(tmp_path_factory):
  return write_scans(tmp_path_factory.mktemp('folder') / 'scans')


def load(root, *words, preset='tiny'):
  words = ','.join([preset, f'root={root}', ATTRIBUTES, *words])
  return parsing.load(f'{ROOT}/configs/folder.py:{words}')


def patients(config):
  cohorts = cohorts_of_config.cohorts(config.data)
  return {name: set(cohort.patients) for name, cohort in cohorts.items()}


def test_no_patient_is_public_unless_it_is_said(scans, tmp_path, capsys):
  config = f'{ROOT}/configs/folder.py:tiny,root={scans},{ATTRIBUTES}'
  assert main.main([f'--config={config}', f'--workdir={tmp_path / "work"}']) == 2
  error = capsys.readouterr().err
  assert all(f'{ATTRIBUTES},{way}"' in error for way in WAYS)
  assert not (tmp_path / 'work').exists()


def test_with_another_public_folder_all_patients_are_private_or_test(scans, tmp_path):
  other = write_scans(tmp_path / 'other', num=3, first=50)
  found = patients(load(scans, f'public={other}'))
  assert found['public'] == {'P50', 'P51', 'P52'}
  assert len(found['private']) == 7 and len(found['test']) == 3


@pytest.mark.parametrize('word', ['cohort=cohort', ''])
def test_a_column_of_the_table_says_who_is_public(tmp_path, word):
  said = ('public', 'Private', 'test')
  root = write_scans(tmp_path / 'scans', cohort=lambda n: said[min(n // 3, 2)])
  config = load(root, *filter(None, (word,)))
  found = patients(config)
  assert found['public'] == {'P0', 'P1', 'P2'} and found['private'] == {
    'P3',
    'P4',
    'P5',
  }
  assert len(found['test']) == 4 and demonstration_split.warning(config.data) == ''


def test_a_word_that_is_no_cohort_is_named_with_its_line(tmp_path):
  words = ['public', 'pubic', *['private'] * 8]
  root = write_scans(tmp_path / 'scans', cohort=lambda n: words[n])
  with pytest.raises(ValueError, match=r"line 3, column 'cohort'.*'pubic'.*private"):
    load(root)


def test_a_patient_of_two_cohorts_is_refused(tmp_path):
  root = write_scans(tmp_path / 'scans', cohort=lambda n: ('public', 'private')[n % 2])
  table = root / 'participants.csv'
  table.write_text(table.read_text().replace('P3;', 'P2;').replace('cohort', 'site', 1))
  with pytest.raises(ValueError, match=r"'P2' is private, but public"):
    load(root, 'cohort=site')


def test_a_column_cohort_of_other_words_says_nothing(tmp_path):
  root = write_scans(tmp_path / 'scans', cohort=lambda n: 'UK')
  with pytest.raises(ValueError, match='Nothing says which patients are public'):
    load(root)


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (('split=demo', 'public=none'), 'give only one of them'),
    (('split=random',), 'split=demo'),
    (('split=demo', 'phantom=brain'), 'goes with public=none'),
    (('public=none', 'phantom=liver'), 'brain, cardiac, chest'),
    (('cohort=site',), "no column 'site'"),
  ],
)
def test_ways_that_do_not_go_together_are_refused(scans, words, said):
  with pytest.raises(ValueError, match=said):
    load(scans, *words)


def test_the_private_folder_is_no_public_one_however_it_is_spelled(scans):
  with pytest.raises(ValueError, match='is the folder of the private patients'):
    load(scans, f'public={scans}/../{scans.name}')


@pytest.mark.parametrize('phantom', ['brain', 'cardiac', 'chest'])
def test_where_nobody_is_public_a_phantom_stands_in_with_the_same_schema(
  scans, phantom
):
  config = checks.check(load(scans, 'public=none', f'phantom={phantom}'))
  cohorts = cohorts_of_config.cohorts(config.data)
  assert config.data.public.layout == f'phantom_{phantom}'
  assert not any(patient.startswith('P') for patient in cohorts['public'].patients)
  assert cohorts['public'].schema == cohorts['private'].schema
  assert all(r.attributes['volume'] is None for r in cohorts['public'].records)
  ages = [r.attributes['age'] for r in cohorts['public'].records]
  assert None not in ages and demonstration_split.warning(config.data) == ''


def test_a_table_of_semicolons_and_decimal_commas_is_read_right(scans):
  records = cohorts_of_config.cohorts(load(scans, 'split=demo').data)['private'].records
  for record in records:
    number = int(record.patient[1:])
    assert record.attributes['volume'] == 1000.25 + number
    assert record.attributes['age'] == 30.5 + number


# Parts


def without(root, scans, number):
  """A copy of the folder of scans without one patient."""
  shutil.copytree(scans, root)
  (root / f'P{number}.nii.gz').unlink()
  table = root / 'participants.csv'
  lines = table.read_text().splitlines(keepends=True)
  kept = [line for line in lines if not line.startswith(f'P{number};')]
  table.write_text(''.join(kept))
  return root


@pytest.mark.parametrize('number', range(10))
def test_without_one_patient_nobody_else_becomes_public(scans, tmp_path, number):
  before = patients(load(scans, 'split=demo'))
  after = patients(load(without(tmp_path / 'scans', scans, number), 'split=demo'))
  assert after == {name: found - {f'P{number}'} for name, found in before.items()}


def test_a_part_of_nobody_names_the_salt_and_another_salt_helps(tmp_path):
  scans = write_scans(tmp_path / 'scans', num=3)
  with pytest.raises(ValueError, match=r'data\.test .*of the 3 .*split_seed=0'):
    load(scans, 'public=none')
  found = patients(load(scans, 'public=none', 'split_seed=7'))
  assert len(found['private']) == 2 and len(found['test']) == 1


# Sizes


@pytest.mark.parametrize('preset', list(presets.LARGEST))
@pytest.mark.parametrize('num', [1, 3, 8, 12, 36, 72, 500, 5000, 200_000])
def test_sizes_chosen_for_any_number_of_patients_pass_the_checks(preset, num):
  config = defaults()
  chosen = presets.use_numbers(config, preset, num, num)
  flat = parsing.flatten(checks.check(config))
  assert {key: flat[key] for key in chosen} == chosen
  privacy = config.adapt.privacy
  scheme = private_run.configured(privacy, num, config.adapt.steps)
  assert num < 2 or scheme.sampling_probability <= 0.5
  assert privacy.delta * num <= 0.1
  for key in ('autoencoder.batch_size', 'diffusion.batch_size'):
    assert flat[key] % 4 == 0
  assert privacy.chunk_size % 4 == 0
  assert privacy.chunk_size % (privacy.microbatch or privacy.chunk_size) == 0


def test_a_larger_cohort_never_gets_smaller_batches_or_fewer_steps():
  def sizes(num):
    chosen = presets.use_numbers(defaults(), 'small', num, num)
    keys = ('adapt.steps', 'adapt.privacy.batch_size', 'adapt.privacy.chunk_size')
    return [chosen[key] for key in keys]

  found = [sizes(num) for num in (2, 8, 12, 36, 72, 500, 5000)]
  assert all(list(column) == sorted(column) for column in zip(*found, strict=True))


def test_what_was_chosen_is_printed_once_and_stands_in_the_config(scans, capsys):
  presets.say_once.cache_clear()
  config = load(scans, 'split=demo')
  load(scans, 'split=demo')
  (line,) = capsys.readouterr().err.splitlines()
  assert '5 public, 2 private, 3 test patients' in line
  for key in ('adapt.privacy.batch_size', 'adapt.steps', 'diffusion.batch_size'):
    assert f'{key}={parsing.flatten(config)[key]}' in line


# A split by lot


def test_a_lot_is_a_demonstration_whatever_config_and_flags_call_it(scans, tmp_path):
  config = load(scans, 'split=demo')
  assert demonstration_split.share(config.data) == 0.4
  assert '40 % of these patients' in demonstration_split.warning(config.data)
  parsing.override(
    config, {'data.public.root': f'{scans}/', 'data.split.public': '0.25'}
  )
  assert demonstration_split.share(config.data) == 0.25
  for file in ('hippocampus.py:tiny,', 'cardiac.py:tiny,data=acdc,'):
    config = parsing.load(f'{ROOT}/configs/{file}root={tmp_path}')
    assert demonstration_split.share(config.data) in (0.4, 0.5)


def test_a_phantom_and_another_folder_are_no_demonstration(scans, tmp_path):
  other = write_scans(tmp_path / 'other', num=3, first=50)
  assert demonstration_split.share(load(scans, f'public={other}').data) is None
  assert (
    demonstration_split.share(parsing.load(f'{ROOT}/configs/brain.py').data) is None
  )


@pytest.fixture(scope='module')
def examined(scans):
  """The work folder of a demonstration after doctor and prepare."""
  work = scans.parent / 'work'
  config = f'{ROOT}/configs/folder.py:tiny,root={scans},{ATTRIBUTES},split=demo'
  flags = ['--stages=doctor,prepare', '--config.sample.num=2']
  # Neither what the networks cost nor what the noise costs is looked at here.
  flags += ['--config.diffusion.model.kind=dit']
  flags += ['--config.diffusion.model.dit.num_blocks=1']
  flags += ['--config.adapt.privacy.mechanism=full_batch']
  assert main.main([f'--config={config}', f'--workdir={work}', *flags]) == 0
  return work


def test_privacy_json_of_a_demonstration_says_so_first(examined):
  privacy = json.loads((examined / 'privacy.json').read_text())
  assert privacy['demonstration_split'] == {'share_unprotected': 0.4}
  assert privacy['not_covered'][0] == demonstration_split.sentence(0.4)


def test_doctor_warns_in_red_of_a_demonstration(examined):
  text = (examined / 'report' / 'doctor.html').read_text()
  assert '<div class="banner" role="alert">Demonstration only: 40 %' in text


PRIVATE = {
  'unit': 'patient',
  'relation': 'add_or_remove_one',
  'epsilon': 2.0,
  'delta': 1e-5,
  'num_patients': 50,
  'releases': [{'name': 'adapt', 'randomness': 'operating system'}],
}


def test_no_statement_on_a_demonstration_is_green():
  assert statement(PRIVATE).private
  said = statement({**PRIVATE, 'demonstration_split': {'share_unprotected': 0.4}})
  assert not said.private and said.bounds is None
  assert said.headline.startswith('Demonstration only: 40 %')
  assert 'protected by differential privacy' not in said.headline
  green = 'class="notice good"'
  lot = {'share_unprotected': 0.4}
  assert green in index_page.html({'privacy': PRIVATE})
  assert green not in index_page.html(
    {'privacy': {**PRIVATE, 'demonstration_split': lot}}
  )


def test_every_page_and_the_card_of_a_demonstration_carry_the_banner(scans, tmp_path):
  config = load(scans, 'split=demo')
  warning = demonstration_split.warning(config.data)
  empty = types.SimpleNamespace(
    read_json=lambda *_: None,
    read_arrays=lambda *_: None,
    events=lambda: [],
    path=tmp_path.joinpath,
  )
  gathered = content.gather(config, empty, {}, None)
  banner = f'<div class="banner" role="alert">{warning}</div>'
  assert banner in index_page.html(gathered)
  lot = {**PRIVATE, 'demonstration_split': {'share_unprotected': 0.4}}
  assert banner in index_page.html({'privacy': lot})
  assert f'> **{warning}**' in model_card.markdown(gathered)
  figures = {
    'latent': {'mean': [0.0], 'std': [1.0]},
    'alarms': [],
    'reconstruction': {},
  }
  volumes = np.zeros((2, 1, 2, 4, 4))
  path = tmp_path / 'autoencoder.html'
  autoencoder_page.write(path, 'x', {}, figures, volumes, [], warning)
  assert banner in path.read_text()
  table = sweep_table.write(
    tmp_path, {'a': {'frechet': 1.0}}, {'a': {}}, 'note', warning
  )
  assert table.startswith(f'> **{warning}**')
  assert 'class="banner"' not in index_page.html({'privacy': PRIVATE})
