"""Laws of the CheXpert layout, on a tree of its shape."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers.picture import LONGER_SIDE_MM
from ldm_jax.data.store import store

read = layouts.LAYOUTS['chexpert'].read
HEADER = (
  'Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,'
  'Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,'
  'Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices'
)
SMALL = 'CheXpert-v1.0-small'
TRAIN = (
  'train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1',
  'train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,0.0,'
  ',1.0,,-1.0,,,',
  'train/patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,,,1,,,,,,,,,,,',
)
VALID = (
  'valid/patient64541/study1/view1_frontal.jpg,Unknown,73,Frontal,AP' + ',0.0' * 14,
)


@pytest.fixture
def tree(tmp_path):
  def make(train=TRAIN, folder=SMALL, prefix=SMALL):
    for file, rows in (('train', train), ('valid', VALID)):
      lines = [HEADER, *(f'{prefix}/{row}' if prefix else row for row in rows)]
      (tmp_path / folder).mkdir(exist_ok=True)
      (tmp_path / folder / f'{file}.csv').write_text('\n'.join(lines) + '\n')
      for row in rows:
        path = tmp_path / folder / row.split(',')[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, (32, 39)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path

  return make


@pytest.mark.parametrize('folder', [SMALL, 'CheXpert-v1.0', '.'])
@pytest.mark.parametrize('prefix', [SMALL, 'CheXpert-v1.0', ''])
def test_a_path_finds_its_picture_whatever_folder_and_prefix_are_called(
  tree, folder, prefix
):
  cohort = read(tree(folder=folder, prefix=prefix))
  assert [r.id for r in cohort.records] == [
    'patient00001_study1_view1_frontal',
    'patient00002_study2_view1_frontal',
    'patient64541_study1_view1_frontal',
  ]
  for record in cohort.records:
    assert record.source.read()[0].array.shape == (1, 32, 39)
  assert cohort.records[1].visit == 'study2'
  assert set(cohort.published('train').patients) == {'patient00001', 'patient00002'}
  assert set(cohort.published('validation').patients) == {'patient64541'}


def test_findings_are_yes_no_uncertain_or_not_mentioned(tree):
  root = tree()
  values = [r.attributes for r in read(root).records]
  assert values[0]['cardiomegaly'] is None and values[0]['age'] == 68
  assert (values[1]['atelectasis'], values[1]['consolidation']) == ('yes', 'no')
  assert (values[0]['sex'], values[2]['sex']) == ('F', None)
  assert (values[0]['projection'], values[1]['projection']) == ('AP', 'PA')
  for uncertain, expected in (
    ('missing', None),
    ('present', 'yes'),
    ('absent', 'no'),
    ('own', 'uncertain'),
  ):
    cohort = read(root, uncertain=uncertain)
    assert cohort.records[1].attributes['cardiomegaly'] == expected
    assert cohort.records[1].attributes['pleural_effusion'] == expected
    cohort.schema.encode(cohort.records[1].attributes)
  assert read(root, blank='absent').records[0].attributes['edema'] == 'no'


def test_views_and_findings_are_options(tree):
  root = tree()
  assert len(read(root, view='').records) == 4
  (record,) = read(root, view='lateral').records
  assert record.attributes['projection'] is None
  names = read(root, findings=('Support Devices',)).schema.names
  assert names == ('age', 'sex', 'projection', 'support_devices')
  schema = Schema.from_config([{'name': 'Age', 'low': 0, 'high': 90}])
  assert read(root, schema=schema).records[0].attributes == {'Age': 68}
  with pytest.raises(ValueError, match=r"options.uncertain is 'maybe'"):
    read(root, uncertain='maybe')
  with pytest.raises(ValueError, match=r"no column 'Broken Heart'"):
    read(root, findings=('Broken Heart',))


def test_radiographs_pass_through_the_same_store_as_volumes(tree, tmp_path):
  cohort = read(tree())
  mm = LONGER_SIDE_MM / 16
  index = store.prepare(tmp_path / 's', cohort, Spec((1, 16, 16), (None, mm, mm)))
  assert len(index['entries']) == 3 and not index['problems']
  split = store.open_split(tmp_path / 's', 'chexpert')
  assert split.volumes([0, 1, 2]).shape == (3, 1, 16, 16, 1)


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('train/patient00003/study1/view1_frontal.jpg,Male,old,Frontal,AP', r"'Age'.*old"),
    ('train/nobody.jpg,Male,60,Frontal,AP', r"line 3, column 'Path'"),
  ],
)
def test_a_faulty_row_stays_in_the_cohort_with_its_reason(tree, row, message):
  cohort = read(tree(train=(TRAIN[0], row)))
  assert len(cohort.records) == 3
  with pytest.raises(ValueError, match=message):
    cohort.records[1].source.read()


def test_a_missing_picture_is_found_by_prepare(tree, tmp_path):
  root = tree()
  (root / SMALL / TRAIN[0].split(',')[0]).unlink()
  with pytest.raises(
    ValueError, match=r'patient00001.*cannot be read: it does not exist'
  ):
    store.prepare(tmp_path / 's', read(root), Spec((1, 8, 8)))


def test_a_folder_of_something_else_is_an_error(tmp_path):
  (tmp_path / 'x').write_text('')
  with pytest.raises(ValueError, match=r'no train.csv or valid.csv'):
    read(tmp_path)
