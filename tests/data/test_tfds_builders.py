"""Laws of the tensorflow-datasets builders, which need no TensorFlow.

tfds's own DatasetBuilderTestCase is a tf.test.TestCase and reads through tf.data; it
runs here where TensorFlow is installed. The tests beside it check without it what it
checks: registration, documentation, features, unique keys, splits, and a build that can
be read again in another process.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.layouts import tfds as built
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import store

NEEDS = 'builders need the extra tfds'
tfds = pytest.importorskip('tensorflow_datasets', reason=NEEDS)
pytest.importorskip('array_record', reason=NEEDS)
from ldm_jax.data import tfds_builders  # noqa: E402

SPEC = Spec((6, 8, 8), (None, 3.0, 3.0), centre='label')
PHANTOM = {
  'num_patients': 2,
  'shape': (12, 16, 16),
  'spacing_mm': (10.0, 11.0, 11.0),
}


@pytest.fixture
def scd(tmp_path, save_nifti):
  """Three patients of Sunnybrook's shape, one without ES, in a folder."""
  rows = ['PatientID\tOriginalID\tSex\tAge\tPathology']
  for number in range(3):
    name = f'SC-N-{number:02d}'
    rows.append(f'SCD{number}\t{name}\t{"MF"[number % 2]}\t{40 + number}\tNormal')
    for phase in ('ED', 'ES')[: 1 + (number != 1)]:
      rng = np.random.default_rng(number)
      label = np.zeros((9, 9, 5), np.uint8)
      label[3:6, 3:6] = 1
      path = tmp_path / 'scd' / name / f'{name}_{phase}'
      save_nifti(f'{path}.nii.gz', rng.integers(0, 255, (9, 9, 5)).astype(np.int16))
      save_nifti(f'{path}_gt.nii.gz', label)
  (tmp_path / 'scd' / 'participants.tsv').write_text('\n'.join(rows))
  return tmp_path / 'scd'


def files_of(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob('*.safetensors'))
  }


def assert_same_store(first, second, tmp_path):
  """Both cohorts give the same index and the same bytes."""
  for name, cohort in (('a', first), ('b', second)):
    store.prepare(tmp_path / name, cohort, SPEC)
  indices = [
    json.loads((tmp_path / name / f'{first.name}.json').read_text()) for name in 'ab'
  ]
  assert indices[0] == indices[1] and len(indices[0]['entries']) > 2
  assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')


def test_what_tfds_built_and_the_files_give_one_store(scd, tmp_path):
  builder = tfds_builders.build('scd', tmp_path / 'built', scd)
  again = built.read(str(builder.data_dir))
  assert_same_store(layouts.LAYOUTS['scd'].read(scd), again, tmp_path)
  assert again.schema == layouts.LAYOUTS['scd'].read(scd).schema


def test_a_phantom_is_built_without_files_and_without_tensorflow(tmp_path):
  builder = tfds_builders.build('phantom_cardiac', tmp_path / 'built', options=PHANTOM)
  cohort = layouts.LAYOUTS['phantom_cardiac'].read(**PHANTOM)
  source = builder.as_data_source(split='train')
  assert len(source) == len(cohort.records) == 4
  for index in (3, 0):  # in any order
    scan, label = cohort.records[index].source.read()
    example = source[index]
    assert np.array_equal(example['image'], scan.array)
    assert np.array_equal(example['label'], label.array)
    np.testing.assert_array_equal(example['affine'], scan.affine)
    assert example['id'].decode() == cohort.records[index].id
  assert_same_store(cohort, built.read(str(builder.data_dir)), tmp_path)
  if 'tensorflow' not in sys.modules:
    code = (
      'import sys; from ldm_jax.data.layouts import tfds; '
      f'tfds.read({str(builder.data_dir)!r}).records[1].source.read(); '
      'assert "tensorflow" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_scan_that_cannot_be_read_is_noted_not_lost_in_silence(scd, tmp_path):
  (scd / 'SC-N-00' / 'SC-N-00_ES.nii.gz').write_bytes(b'no scan')
  cohort = built.read(str(tfds_builders.build('scd', tmp_path / 'built', scd).data_dir))
  assert len(cohort.records) == 4
  assert any('SC-N-00_ES: left out' in note for note in cohort.notes)


@pytest.mark.parametrize('name', [n for n in layouts.LAYOUTS if n != 'tfds'])
def test_every_layout_is_a_registered_builder_with_its_version(name):
  about = layouts.LAYOUTS[name].ABOUT
  builder = tfds_builders.BUILDERS[name]
  imported = tfds.list_builders(with_community_datasets=False)
  assert builder.name == f'ldm_{name}' in imported
  assert str(builder.VERSION) == about.version
  assert bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS) == bool(about.instructions)


def test_what_is_built_says_version_citation_and_licence(scd, tmp_path):
  builder = tfds_builders.build('scd', tmp_path / 'built', scd)
  info = tfds.builder_from_directory(builder.data_dir).info
  about = layouts.LAYOUTS['scd'].ABOUT
  assert str(info.version) == about.version and about.title in info.description
  assert info.citation == about.citation
  assert about.licence in (pathlib.Path(builder.data_dir) / 'LICENSE').read_text()
  assert info.splits['train'].num_examples == 5
  assert set(info.features) >= {'image', 'label', 'affine', 'id', 'patient'}
  assert info.features['image'].np_dtype == np.float32


def test_tfds_own_builder_test_passes_where_tensorflow_is_installed(scd):
  pytest.importorskip('tensorflow', reason="tfds's own test reads with TensorFlow")
  import unittest

  class Case(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = tfds_builders.BUILDERS['scd']
    SPLITS = {'train': 5}  # noqa: RUF012
    EXAMPLE_DIR = str(scd)

  names = ('test_registered', 'test_info', 'test_download_and_prepare_as_dataset')
  suite = unittest.TestSuite(Case(name) for name in names)
  result = unittest.TestResult()
  suite.run(result)
  assert result.wasSuccessful(), result.errors + result.failures
