"""Laws of the first look: it tells every fault it meets and stops at none."""

import json

import numpy as np

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.inspection import findings
from ldm_jax.data.preprocessing.preprocess import Spec

SCHEMA = Schema(
  (
    Attribute('age', low=18, high=90, unit='years'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
  )
)


def cohort_of(paths, name='mine', rows=None, notes=()):
  rows = rows or [{}] * len(paths)
  records = [
    Record(path.stem, path.stem, FileSource(str(path)), row)
    for path, row in zip(paths, rows, strict=True)
  ]
  return Cohort(name, SCHEMA, tuple(records), notes)


def test_every_fault_is_told(tmp_path, save_nifti):
  paths = [
    save_nifti(tmp_path / 'a.nii', seed=0),
    save_nifti(tmp_path / 'b.nii', seed=0),
    save_nifti(tmp_path / 'c.nii', affine=np.diag([-1, 1, 5, 1.0]), shape=(6, 5, 9)),
    tmp_path / 'missing.nii',
  ]
  rows = [{'age': 20, 'sex': 'F'}, {'age': 200}, {'sex': 'M'}, {}]
  cohort = cohort_of(paths, rows=rows, notes=('x: no ES stack',))
  found = findings.inspect(cohort, spec=Spec((8, 8, 8))).findings
  assert found['counts']['patients'] == 4
  assert found['shapes'] == {'4x5x6': 2, '9x5x6': 1}
  assert found['orientations'] == {'RAS': 2, 'LAS': 1}
  assert [m.split(':')[0] for m in found['unreadable']] == ['missing']
  assert found['duplicates'] == ['b: the same file as a']
  assert not found['near_duplicates'], 'told twice'
  assert len(found['out_of_range']) == 1 and '200' in found['out_of_range'][0]
  assert found['attributes']['age']['missing'] == 2
  assert found['groups']['sex'] == {'F': 1, 'M': 1}
  assert found['cut_off'] == ['c: 9 slices, preprocess.shape keeps the middle 8']
  assert found['notes'] == ['x: no ES stack']
  json.dumps(found)


def test_only_some_scans_are_read_when_asked_evenly_chosen(tmp_path, save_nifti):
  paths = [save_nifti(tmp_path / f'{n}.nii', seed=n) for n in range(9)]
  done = []
  look = findings.inspect(cohort_of(paths), max_records=3, progress=done.append)
  assert look.ids == ['0', '4', '8'] and done == [1, 2, 3]
  assert look.findings['counts']['inspected'] == 3
  assert look.findings['counts']['records'] == 9


def test_a_scan_unlike_the_rest_is_told_with_numbers(tmp_path, save_nifti):
  paths = [save_nifti(tmp_path / f'{n}.nii', seed=n) for n in range(8)]
  bright = np.random.default_rng(0).integers(0, 200, (6, 5, 4)) * 1000
  save_nifti(paths[2], bright.astype(np.int32))
  save_nifti(paths[5], affine=np.diag([1, 1, 3, 1.0]), seed=5)
  odd = findings.inspect(cohort_of(paths)).findings['odd']
  assert [message.split(':')[0] for message in odd] == ['2', '5']
  assert 'robust deviations' in odd[0] and 'usual are 1.00 x 1.00 x 1.00' in odd[1]


def test_real_patients_are_told_apart(real_data):
  folder = real_data / 'hippocampus' / 'images'
  paths = sorted(folder.glob('*.nii.gz'))[:30]
  look = findings.inspect(cohort_of(paths))
  assert not look.findings['near_duplicates']
  assert len(look.thumbnails) == 30


def test_patients_in_two_cohorts_are_found_by_id_and_by_picture(tmp_path, save_nifti):
  names = ('a', 'b', 'c', 'd')
  public = [save_nifti(tmp_path / 'one' / f'{n}.nii', seed=ord(n)) for n in names]
  others = [
    save_nifti(tmp_path / 'two' / f'{n}.nii', seed=ord(n)) for n in ('x', 'y', 'a', 'z')
  ]
  others[1].write_bytes(public[3].read_bytes())  # y is d under another name
  gamma = np.random.default_rng(ord('b')).integers(0, 200, (6, 5, 4)) ** 0.8
  save_nifti(others[3], gamma.astype(np.float32))  # z is b in other bytes
  looks = {
    'public': findings.inspect(cohort_of(public, 'public')),
    'private': findings.inspect(cohort_of(others, 'private')),
  }
  told = findings.shared(looks)
  assert any('patient a is in public and in private' in text for text in told)
  assert any('y of private is the same file as d of public' in text for text in told)
  assert any('z of private looks like b of public' in text for text in told)
