"""Laws of the first look: it tells every fault it meets and stops at none."""

import json

import numpy as np

from ldm_jax.data import inspection
from ldm_jax.data.attributes import Attribute, Schema
from ldm_jax.data.cohort import Cohort, FileSource, Record
from ldm_jax.data.preprocess import Spec

SCHEMA = Schema(
  (
    Attribute('age', low=18, high=90, unit='years'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
  )
)


def test_every_fault_is_told(tmp_path, save_nifti):
  paths = [
    save_nifti(tmp_path / 'a.nii', seed=0),
    save_nifti(tmp_path / 'b.nii', seed=0),
    save_nifti(tmp_path / 'c.nii', affine=np.diag([-1, 1, 5, 1.0]), shape=(6, 5, 9)),
    tmp_path / 'missing.nii',
  ]
  rows = [{'age': 20, 'sex': 'F'}, {'age': 200}, {'sex': 'M'}, {}]
  records = [
    Record(path.stem, path.stem, FileSource(str(path)), row)
    for path, row in zip(paths, rows, strict=True)
  ]
  cohort = Cohort('mine', SCHEMA, tuple(records), ('x: no ES stack',))
  found = inspection.inspect(cohort, spec=Spec((8, 8, 8)))
  assert found['counts']['patients'] == 4
  assert found['shapes'] == {'4x5x6': 2, '9x5x6': 1}
  assert found['orientations'] == {'RAS': 2, 'LAS': 1}
  assert [m.split(':')[0] for m in found['unreadable']] == ['missing']
  assert found['duplicates'] == ['b: the same file as a']
  assert len(found['out_of_range']) == 1 and '200' in found['out_of_range'][0]
  assert found['attributes']['age']['missing'] == 2
  assert found['cut_off'] == ['c: 9 slices, preprocess.shape keeps the middle 8']
  text = inspection.text(found)
  for word in ('4 patients', 'LAS (1)', 'missing.nii', 'declared 18 .. 90', 'ES stack'):
    assert word in text
  json.dumps(found)


def test_only_the_first_scans_are_read_when_asked(tmp_path, save_nifti):
  path = save_nifti(tmp_path / 'a.nii')
  records = [Record(f'r{i}', f'p{i}', FileSource(str(path))) for i in range(5)]
  found = inspection.inspect(Cohort('mine', Schema(), tuple(records)), max_records=2)
  assert found['counts']['inspected'] == 2 and found['counts']['records'] == 5
