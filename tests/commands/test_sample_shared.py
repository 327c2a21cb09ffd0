"""Laws of ldm-jax-sample: a data set from flags, one sentence for what cannot be."""

import csv

import nibabel as nib
import numpy as np
import pytest

import ldm_jax
from ldm_jax.commands import sample_shared


@pytest.fixture(scope='module')
def shared(exported):
  return f'--model={exported / "shareable.zip"}'


def rows(folder):
  with open(folder / 'participants.tsv', newline='') as file:
    return list(csv.DictReader(file, delimiter='\t'))


def test_flags_become_a_data_set_with_what_was_asked_for(shared, tmp_path, capsys):
  out = tmp_path / 'out'
  flags = [shared, f'--out={out}', '--num=3', '--seed=5', '--rest=unknown']
  assert sample_shared.main([*flags, '--set.AGE=60', '--set.LVEDV=100:120']) == 0
  printed = capsys.readouterr()
  assert 'NOT PRIVATE' in printed.err and 'Wrote 3 volumes' in printed.out
  found = rows(out)
  assert len(found) == 3 and {row['AGE'] for row in found} == {'60.0'}
  assert all(100 <= float(row['LVEDV']) <= 120 for row in found)
  assert {row['BMI'] for row in found} == {'n/a'}
  model = ldm_jax.load(shared.partition('=')[2])
  drawn = model.sample(3, seed=5, rest='unknown', AGE=60, LVEDV='100:120')
  image = nib.load(out / 'synthetic_00002.nii.gz')
  assert np.allclose(image.get_fdata().T, drawn[2], atol=1e-5)
  assert np.allclose(nib.affines.voxel_sizes(image.affine), (11, 11, 16))


def test_a_table_gives_one_volume_a_row(shared, tmp_path):
  table = tmp_path / 'asked.csv'
  table.write_text('AGE,SEX\n40,M\n70,F\n')
  flags = [shared, f'--requests={table}', f'--out={tmp_path / "out"}']
  assert sample_shared.main([*flags, '--rest=unknown', '--batch_size=1']) == 0
  assert [(row['AGE'], row['SEX']) for row in rows(tmp_path / 'out')] == [
    ('40.0', '1'),
    ('70.0', '0'),
  ]


def test_several_volumes_of_a_patient_have_its_id(shared, tmp_path):
  out = tmp_path / 'out'
  flags = [shared, '--within.ESED=1|0', '--rest=unknown', '--set.AGE=50:70']
  assert sample_shared.main([*flags, f'--out={out}', '--num=4']) == 0
  found = rows(out)
  assert [row['participant_id'][-1] for row in found] == list('0011')
  assert [row['ESED'] for row in found] == ['1', '0'] * 2
  assert found[0]['AGE'] == found[1]['AGE'] != found[2]['AGE']
  assert all((out / row['file']).is_file() for row in found)


def test_about_says_what_the_model_knows_and_guarantees(shared, capsys):
  assert sample_shared.main([shared, '--about']) == 0
  told = capsys.readouterr().out
  for word in ('AGE (18 to 95 years)', '"epsilon_guaranteed": "inf"', 'NOT PRIVATE'):
    assert word in told


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--out=out', '--set.AGE=900'], 'AGE (18 to 95 years)'),
    (['--out=out', '--set.AGEE=60'], 'Did you mean AGE or ANGLE?'),
    (['--out=out', '--num=0'], '--num is 0'),
    (['--out=out', '--sauce'], "The flag '--sauce' is not known"),
    (['--set.AGE=60'], '--out is missing'),
    (['--out=.'], 'not empty'),
    (['--out=out', '--requests=none.csv'], 'does not exist'),
  ],
)
def test_what_cannot_be_drawn_is_one_sentence_and_writes_nothing(
  shared, flags, says, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'x').touch()
  assert sample_shared.main([shared, *flags]) == 2
  told = capsys.readouterr().err.strip()
  assert says in told and told.count('\n') == 0
  assert not (tmp_path / 'out').exists()


def test_a_model_that_is_not_there_is_one_sentence(capsys):
  assert sample_shared.main(['--model=none.zip', '--about']) == 2
  assert 'is no model' in capsys.readouterr().err
