"""Laws of the decathlon layout, on a tree of its shape and on the real one."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema

read = layouts.LAYOUTS['decathlon'].read


@pytest.fixture
def tree(tmp_path, save_nifti):
  """Images a, b, c; labels of a and b; table rows a and d."""

  def make(images='images', labels='labels', table=True):
    for number, name in enumerate('abc'):
      save_nifti(tmp_path / images / f'{name}.nii.gz', seed=number)
    for name in 'ab':
      label = np.zeros((6, 5, 4), np.uint8)
      label[:2, 0, 0], label[2:5, 0, 0] = 1, 2
      save_nifti(tmp_path / labels / f'{name}.nii.gz', label)
    (tmp_path / images / '._a.nii.gz').write_bytes(b'resource fork')
    if table:
      (tmp_path / 'participants.tsv').write_text(
        'participant_id\tanterior_mm3\tposterior_mm3\tshape\n'
        'a\t1324\t1624\t35x51x35\nd\t1\t2\t3x3x3\n'
      )
    return tmp_path

  return make


def test_volumes_come_from_the_table_else_from_the_labels_else_are_missing(tree):
  cohort = read(tree())
  values = {r.id: r.attributes for r in cohort.records}
  assert values['a'] == {'anterior_mm3': 1324, 'posterior_mm3': 1624}
  assert values['b'] == {'anterior_mm3': 2, 'posterior_mm3': 3}
  assert values['c'] == {'anterior_mm3': None, 'posterior_mm3': None}
  assert len(cohort) == 3 and cohort.notes == (
    'd: in participants.tsv but without an image',
  )


def test_labels_are_optional(tree):
  sources = {r.id: r.source for r in read(tree()).records}
  assert sources['a'].read()[1].array.max() == 2
  assert sources['c'].read()[1] is None


def test_the_folders_as_distributed_need_no_table(tree):
  cohort = read(tree('imagesTr', 'labelsTr', table=False))
  assert [r.id for r in cohort.records] == ['a', 'b', 'c']
  assert cohort.records[0].attributes['posterior_mm3'] == 3


def test_the_published_test_images_are_a_part_without_labels(tree, save_nifti):
  root = tree('imagesTr', 'labelsTr', table=False)
  save_nifti(root / 'imagesTs/t.nii.gz', shape=(6, 5, 4, 2))
  cohort = read(root, frame=1)
  assert set(cohort.published('train').patients) == {'a', 'b', 'c'}
  (record,) = cohort.published('test').records
  assert record.id == 't' and record.source.read()[1] is None


def test_other_attributes_are_columns_of_the_table(tree):
  root = tree()
  (root / 'participants.tsv').write_text('participant_id\tage\na\t50\nb\tfifty\n')
  schema = Schema.from_config([{'name': 'age', 'low': 0, 'high': 99}])
  records = {record.id: record for record in read(root, schema=schema).records}
  assert records['a'].attributes == {'age': 50}
  with pytest.raises(ValueError, match=r"line 3, column 'age'.*fifty"):
    records['b'].source.read()
  schema = Schema.from_config([{'name': 'bmi', 'low': 0, 'high': 99}])
  with pytest.raises(ValueError, match=r"'bmi'.*participant_id, age"):
    read(root, schema=schema)


def test_a_repeated_participant_is_an_error(tree):
  root = tree()
  (root / 'participants.tsv').write_text('participant_id\na\na\n')
  with pytest.raises(ValueError, match="'a' appears twice"):
    read(root)


def test_a_folder_of_something_else_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='does not exist'):
    read(tmp_path / 'none')
  (tmp_path / 'x').write_text('')
  with pytest.raises(ValueError, match='images/'):
    read(tmp_path)


def test_real_volumes_equal_their_labels_and_lie_within_their_ranges(real_data):
  cohort = read(real_data / 'hippocampus')
  assert len(cohort) >= 70 and not cohort.notes
  for record in cohort.records:
    assert not cohort.schema.out_of_range(record.attributes)
  scan, label = cohort.records[0].source.read()
  measured = (label.array == 1).sum() * scan.voxel_ml * 1000
  assert cohort.records[0].attributes['anterior_mm3'] == pytest.approx(measured)
