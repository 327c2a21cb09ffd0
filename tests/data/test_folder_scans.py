"""Laws of scans that a command names by their folder."""

import nibabel as nib
import numpy as np
import pytest

from ldm_jax.data import folder_scans
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.preprocessing import preprocess

SCHEMA = Schema(
  (
    Attribute('age', low=20, high=90),
    Attribute('diagnosis', 'categorical', categories=('CN', 'AD')),
  )
)
SPEC = preprocess.Spec((4, 6, 6))


@pytest.fixture
def root(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('b', 'a'):
    image = nib.Nifti1Image(rng.random((7, 6, 5)).astype(np.float32), np.eye(4))
    nib.save(image, tmp_path / f'{name}.nii.gz')
  return tmp_path


def test_without_a_table_every_file_is_a_patient_of_whom_nothing_is_known(root):
  found = folder_scans.Scans(folder_scans.read(str(root), SCHEMA), SPEC)
  assert found.ids == found.patients == ['a', 'b'] and found.name == 'folder'
  assert np.isnan(found.attributes).all() and found.attributes.shape == (2, 2)
  assert found.volumes([1, 0]).shape == (2, 4, 6, 6, 1)
  assert found.labels([0]) is None


def test_a_table_tells_what_it_knows_whatever_the_case_of_its_columns(root):
  (root / 'participants.tsv').write_text('subject\tAge\tother\na\t55\tx\nb\t\ty\n')
  found = folder_scans.read(str(root), SCHEMA)
  assert found.schema == SCHEMA
  attributes = folder_scans.Scans(found, SPEC).attributes
  np.testing.assert_allclose(attributes[:, 0], [0.0, np.nan])
  assert np.isnan(attributes[:, 1]).all()


def test_a_scan_is_preprocessed_as_the_store_would(root):
  cohort = folder_scans.read(str(root), SCHEMA)
  found = folder_scans.Scans(cohort, SPEC)
  expected = preprocess.apply(SPEC, *cohort.records[0].source.read())
  np.testing.assert_array_equal(found.volumes([0])[0, ..., 0], expected.array)
  assert found.record(0) == expected.record and found.shape == SPEC.shape


def test_the_options_of_the_layout_come_as_text(root):
  (root / 'table.csv').write_text('who,path\nx,a.nii.gz\n')
  options = {'subject': 'who', 'image': 'path', 'stack': 'True'}
  (record,) = folder_scans.read(str(root), SCHEMA, options).records
  assert record.id == 'x' and record.source.stack is True
  with pytest.raises(ValueError, match=r'options\.frame'):
    folder_scans.read(str(root), SCHEMA, {**options, 'frame': 'first'})


def test_a_folder_of_no_scans_is_refused(tmp_path):
  (tmp_path / 'notes.txt').write_text('nothing')
  with pytest.raises(ValueError, match=r'neither a table.*counterfactual\.source'):
    folder_scans.read(str(tmp_path), SCHEMA)
  with pytest.raises(ValueError, match=r"'privat'.*public, private"):
    folder_scans.check('privat', {'public': 1, 'private': 2})
  folder_scans.check(str(tmp_path), ())


def test_a_changed_file_changes_the_stamp_and_nothing_else_does(root):
  before = folder_scans.stamp(str(root))
  assert before == folder_scans.stamp(str(root)) and len(before) == 2
  assert folder_scans.stamp(str(root / '{id}.nii.gz')) == before
  (root / 'a.nii.gz').write_bytes(b'changed')
  assert folder_scans.stamp(str(root)) != before
  assert folder_scans.stamp('') == folder_scans.stamp(str(root / 'none')) == []
