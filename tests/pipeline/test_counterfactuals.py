"""The stage `counterfactual` through the command line, on a folder of scans."""

import csv
import pathlib
import shutil

import nibabel as nib
import numpy as np
import pytest

from ldm_jax import main

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'


@pytest.fixture
def scans(finished, tmp_path):
  """Two scans that no cohort knows, of one attribute that the model knows."""
  folder = tmp_path / 'scans'
  folder.mkdir()
  for name in ('one', 'two'):
    source = sorted((finished / 'samples').glob('*.nii.gz'))[name == 'two']
    shutil.copy(source, folder / f'{name}.nii.gz')
  (folder / 'participants.tsv').write_text('subject\tlvedv\none\t150\ntwo\t170\n')
  return folder


def run(work, *flags):
  flags = [f'--config.counterfactual.{flag}' for flag in flags]
  stage = '--stages=counterfactual'
  return main.main([f'--config={MICRO}', f'--workdir={work}', stage, *flags])


def test_a_folder_is_changed_drawn_and_internal_and_not_changed_again(
  finished, scans, tmp_path, capsys
):
  work = shutil.copytree(finished, tmp_path / 'work')
  before = sorted((work / 'store' / 'volumes').iterdir())
  flags = (f'source={scans}', 'editor=sdedit', 'steps=2', 'null_cycles=1')
  assert run(work, *flags) == 0
  with open(work / 'counterfactuals' / 'counterfactuals.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['id'] for row in rows] == ['one', 'two']
  assert [float(row['requested_LVEDV']) for row in rows] == pytest.approx([170, 190])
  for row in rows:
    assert row['internal'] == 'True' and row['source_AGE'] == ''
    source = nib.load(scans / f'{row["id"]}.nii.gz')
    for kind in ('source', 'counterfactual', 'difference'):
      image = nib.load(work / 'counterfactuals' / f'{row["id"]}_{kind}.nii.gz')
      assert image.shape == source.shape
      np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
    montage = work / 'counterfactuals' / f'{row["id"]}_montage.png'
    assert montage.read_bytes().startswith(b'\x89PNG')
  assert sorted((work / 'store' / 'volumes').iterdir()) == before
  capsys.readouterr()
  assert run(work, *flags) == 0
  assert 'counterfactual: up to date' in capsys.readouterr().out


def test_a_source_that_is_nowhere_is_refused_with_the_cohorts(
  finished, tmp_path, capsys
):
  work = shutil.copytree(finished, tmp_path / 'work')
  assert run(work, 'source=nowhere') == 2
  message = capsys.readouterr().err
  assert "'nowhere'" in message and 'public, private, test' in message
