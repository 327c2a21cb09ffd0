"""Counterfactuals lie on their source's grid; of volumes that the change fits."""

import csv
import types

import nibabel as nib
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data import folder_scans
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.synthesis import write_counterfactuals
from ldm_jax.workfolder import WorkFolder

SCHEMA = Schema((Attribute('age', low=20.0, high=90.0),))


def split_of(*ages, patients=None):
  vectors = np.stack([SCHEMA.encode({'age': age}) for age in ages])
  return types.SimpleNamespace(
    attributes=vectors, schema=SCHEMA, patients=patients or list(map(str, ages))
  )


def test_volumes_that_the_change_does_not_fit_are_passed_over():
  chosen, new, _ = write_counterfactuals.changeable(
    split_of(85, 50, None, 60), {'age': '+10'}, 2
  )
  assert chosen.tolist() == [1, 3]
  assert [SCHEMA.decode(v)['age'] for v in new] == pytest.approx([60, 70], abs=1e-3)


def test_all_scans_of_a_patient_are_asked_for_the_same():
  split = split_of(50, 55, 60, 60, 85, 70, patients=list('aabbcc'))
  chosen, new, texts = write_counterfactuals.changeable(split, {'age': '+5|+10|+20'}, 6)
  assert chosen.tolist() == [0, 1, 2, 3, 5]
  assert texts == ['age +5', 'age +5', 'age +10', 'age +10', 'age +20']
  ages = [SCHEMA.decode(v)['age'] for v in new]
  assert ages == pytest.approx([55, 60, 70, 70, 90], abs=1e-3)


def test_a_change_that_fits_no_volume_is_an_error_that_states_the_range():
  with pytest.raises(ValueError, match='90'):
    write_counterfactuals.changeable(split_of(85, 88), {'age': '+10'}, 2)


def test_an_unknown_attribute_is_an_error_that_lists_the_known():
  with pytest.raises(ValueError, match='age'):
    write_counterfactuals.changeable(split_of(50), {'HEIGHT': '+10'}, 2)


SPEC = preprocess.Spec((2, 8, 8), (4.0, 1.5, 1.5))


def affine_of(turn_deg, spacing, axes=(0, 1, 2), signs=(1, 1, 1)):
  """An oblique affine whose file axes run along permuted, flipped world axes."""
  a, b = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
  turn = np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]]) @ [
    [1, 0, 0],
    [0, a, -b],
    [0, b, a],
  ]
  order = np.zeros((3, 3))
  order[axes, range(3)] = signs
  affine = np.eye(4)
  affine[:3, :3] = turn @ order @ np.diag(spacing)
  affine[:3, 3] = -20.5, 31, 7.25
  return affine


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Scans with oblique, anisotropic, permuted and flipped axes, and their masks."""
  root = tmp_path_factory.mktemp('scans')
  rng = np.random.default_rng(0)
  grids = {
    'oblique': ((13, 11, 5), affine_of(12, (0.9, 1.1, 3.7))),
    'turned': (
      (5, 13, 12),
      affine_of(-17, (3.0, 1.0, 1.3), axes=(2, 0, 1), signs=(-1, 1, -1)),
    ),
  }
  for name, (shape, affine) in grids.items():
    # Smooth, and no symmetry in it.
    i, j, k = np.indices(shape)
    array = 500 + 30 * i - 20 * j + 25 * k * np.cos(i / 4) + 5 * rng.random(shape)
    array = array.astype(np.float32)
    nib.save(nib.Nifti1Image(array, affine), root / f'{name}.nii.gz')
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2] = 1
    (root / 'masks').mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine), root / 'masks' / f'{name}.nii.gz')
  (root / 'participants.tsv').write_text('subject\tage\noblique\t50\nturned\t60\n')
  return root, grids


@pytest.fixture(scope='module')
def written(folder, system_of, tmp_path_factory):
  """The work folder after counterfactuals of the folder, within its masks."""
  root, _ = folder
  system = system_of(SCHEMA, w=np.full((1, 3), 2.0, np.float32))
  config = defaults()
  section = config.counterfactual
  section.source, section.editor = str(root), 'sdedit'
  section.steps, section.null_cycles = 4, 1
  section.mask = str(root / 'masks' / '{id}.nii.gz')
  with section.set.unlocked():
    section.set.age = '+10'
  work = WorkFolder(tmp_path_factory.mktemp('work'))
  split = folder_scans.Scans(folder_scans.read(str(root), SCHEMA), SPEC)
  write_counterfactuals.write_counterfactuals(config, work, system, split)
  return work


@pytest.mark.parametrize('name', ['oblique', 'turned'])
def test_a_result_has_the_affine_and_the_shape_of_the_source_file(
  folder, written, name
):
  root, grids = folder
  shape, affine = grids[name]
  found = {
    kind: nib.load(written.root / 'counterfactuals' / f'{name}_{kind}.nii.gz')
    for kind in ('source', 'counterfactual', 'difference')
  }
  for image in found.values():
    assert image.shape == shape
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
  arrays = {kind: image.get_fdata() for kind, image in found.items()}
  np.testing.assert_allclose(
    arrays['counterfactual'] - arrays['source'], arrays['difference'], atol=1e-2
  )
  # In place, too: the preprocessed source still looks like the file.
  file = nib.load(root / f'{name}.nii.gz').get_fdata()
  inside = arrays['source'] > arrays['source'].min()
  assert inside.sum() > 100
  assert np.corrcoef(file[inside], arrays['source'][inside])[0, 1] > 0.95


@pytest.mark.parametrize('name', ['oblique', 'turned'])
def test_what_the_mask_keeps_is_the_sources_voxel_for_voxel(folder, written, name):
  mask = nib.load(folder[0] / 'masks' / f'{name}.nii.gz').get_fdata() > 0
  difference = nib.load(written.root / 'counterfactuals' / f'{name}_difference.nii.gz')
  difference = difference.get_fdata()
  assert np.all(difference[~mask] == 0)
  assert np.abs(difference[mask]).max() > 1


def test_scans_of_a_folder_are_internal_and_not_stored(written):
  with open(written.root / 'counterfactuals' / 'counterfactuals.csv') as file:
    rows = list(csv.DictReader(file))
  assert [row['id'] for row in rows] == ['oblique', 'turned']
  assert all(row['internal'] == 'True' and row['cohort'] == 'folder' for row in rows)
  assert [float(row['requested_age']) for row in rows] == pytest.approx([60, 70])
  assert not (written.root / 'store' / 'volumes').exists()
  assert (
    str(written.read_arrays(write_counterfactuals.COUNTERFACTUALS)['cohort'])
    == 'folder'
  )
