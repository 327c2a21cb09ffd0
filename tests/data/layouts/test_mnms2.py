"""Laws of the M&Ms-2 layout, on a tree of its shape."""

import numpy as np
import pytest

from ldm_jax.data import layouts

AFFINE = np.diag([1.0, 1.0, 10.0, 1.0])
mnms2 = layouts.LAYOUTS['mnms2'].read


def heart(size):
  own = np.zeros((8, 7, 5), np.uint8)
  own[:size, 0], own[:size, 1], own[0, 2] = 1, 2, 3  # LV, muscle, RV
  return own


@pytest.fixture
def tree(tmp_path, save_nifti):
  """Patients 1 and 201, both views, a cine without labels."""

  def make(rows=('1,LV,SIEMENS,Symphony,1.5', '201,Tri,Philips,Achieva,"3,0"')):
    for code in ('001', '201'):
      stem = tmp_path / 'MnM2/dataset' / code / code
      for view, shape in (('SA', (8, 7, 5)), ('LA', (8, 7, 1))):
        for phase, size in (('ED', 4), ('ES', 2)):
          own = heart(size)[..., : shape[2]]
          save_nifti(f'{stem}_{view}_{phase}.nii.gz', affine=AFFINE, shape=shape)
          save_nifti(f'{stem}_{view}_{phase}_gt.nii.gz', own, AFFINE)
      save_nifti(f'{stem}_SA_CINE.nii.gz', shape=(8, 7, 5, 2))
    header = 'SUBJECT_CODE,DISEASE,VENDOR,SCANNER,FIELD'
    lines = '\n'.join([header, *rows, '007,NOR,,,'])
    (tmp_path / 'MnM2/dataset_information.csv').write_text(lines, 'utf-8-sig')
    return tmp_path

  return make


def test_an_unpadded_code_finds_its_folder_and_its_part(tree):
  cohort = mnms2(tree())
  assert [r.id for r in cohort.records] == ['001_ED', '001_ES', '201_ED', '201_ES']
  assert set(cohort.published('train').patients) == {'001'}
  assert set(cohort.published('test').patients) == {'201'}
  first, other = cohort.records[0].attributes, cohort.records[2].attributes
  assert (first['PATHOLOGY'], first['FIELD']) == ('LV', 1.5)
  assert (other['PATHOLOGY'], other['FIELD']) == ('TRI', 3)
  assert first['LVEDV'] == pytest.approx(0.2) and first['LVEF'] == 50
  assert any('007: in' in note for note in cohort.notes)


def test_the_long_axis_is_another_view_of_one_slice(tree):
  record = mnms2(tree(), view='LA').records[0]
  scan, label = record.source.read()
  assert scan.array.shape == (1, 7, 8) and set(np.unique(label.array)) == {0, 1, 2, 3}
  with pytest.raises(ValueError, match=r"options.view is 'CINE'"):
    mnms2(tree(), view='CINE')


def test_a_patient_without_a_phase_or_with_two_rows_is_faulty(tree):
  root = tree(rows=('1,LV,,,', '1,NOR,,,', '201,NOR,,,'))
  (root / 'MnM2/dataset/201/201_SA_ES.nii.gz').unlink()
  records = {r.id: r for r in mnms2(root).records}
  with pytest.raises(ValueError, match='001 has 2 rows'):
    records['001'].source.read()
  with pytest.raises(ValueError, match=r'201_SA_ES.nii.gz does not exist'):
    records['201'].source.read()


def test_a_folder_of_something_else_is_an_error(tmp_path):
  (tmp_path / 'dataset_information.csv').write_text('SUBJECT_CODE\n1\n')
  with pytest.raises(ValueError, match='MnM2'):
    mnms2(tmp_path)
