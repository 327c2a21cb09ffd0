"""Laws of the UK Biobank layout: zips, manifests, series, visits, columns."""

import zipfile

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.layouts.ukbb import read

ROWS = (
  'eid,31-0.0,34-0.0,21022-0.0,21003-2.0,21003-3.0,22421-2.0\n'
  '1000015,1,1950,58,66.0,70.0,150.5\n'
  '1000027,0,1948,60,,,\n'
  '1000039,0,1948,60,,,\n'
)
HEAD = 'filename,patientid,date,series discription\n'


@pytest.fixture(scope='module')
def beat():
  """(x,y,z,t): a bright pool that is smallest in frame 2, and a landmark slice."""
  x, y = np.mgrid[:20, :18] - 9.0
  voxels = np.full((20, 18, 3, 5), 20, np.int16)
  for t, radius in enumerate((6, 5, 3, 4, 5.5)):
    voxels[np.hypot(x, y) < radius, :, t] = 200
  voxels[0, 0] = [[i] * 5 for i in range(3)]
  return voxels


@pytest.fixture
def pack(tmp_path, save_series, beat):
  """Writes a participant's zip as published."""

  def write(name, series='CINE_segmented_SAX_b{}', table='manifest.csv', extra=True):
    source = tmp_path / 'source' / name

    def element(z, t):
      return {
        'SeriesDescription': series.format(z + 1),
        'SeriesInstanceUID': f'1.2.{z}' if '{' in series else '1.2',
        'SeriesNumber': 10 + z if '{' in series else 10,
        'CardiacNumberOfImages': 5,
      }

    save_series(source, beat, np.diag([1.8, 1.8, 10, 1]), element)
    if extra:  # other series of the same examination
      save_series(
        source / 'x',
        beat,
        np.diag([1.8, 1.8, 10, 1]),
        lambda z, t: element(z, t) | {'SeriesDescription': 'CINE_segmented_LAX_4Ch'},
      )
    import pydicom

    lines = [HEAD]
    path = tmp_path / 'root' / 'zips' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
      for number, file in enumerate(sorted(source.rglob('*.dcm'))):
        member = f'1.3.12.2.{number}.dcm'
        text = pydicom.dcmread(file, specific_tags=['SeriesDescription'])
        lines.append(f'{member},1000,Aug 7, 2015,{text.SeriesDescription}\n')
        archive.write(file, member)
      if table:
        archive.writestr(table, '\ufeff' + ''.join(lines))
    return path

  (tmp_path / 'root').mkdir()
  (tmp_path / 'root' / 'ukb.csv').write_text('\ufeff' + ROWS, encoding='utf-8')
  return write


def phases(cohort, beat):
  """Checks that ED is frame 0 and ES frame 2, with slices in order."""
  for record in cohort.records:
    scan, _ = record.source.read()
    assert scan.array.shape == (3, 18, 20)
    np.testing.assert_allclose(scan.spacing, (10, 1.8, 1.8))
    expected = beat[..., {'ED': 0, 'ES': 2}[record.phase]]
    np.testing.assert_array_equal(scan.source.restore(scan.array), expected)


@pytest.mark.parametrize('table', ['manifest.csv', 'manifest.cvs', ''])
def test_slices_are_gathered_from_their_series_under_both_spellings(
  tmp_path, pack, beat, table
):
  pack('1000015_20209_2_0.zip', table=table)
  cohort = read(str(tmp_path / 'root'))
  assert [(r.id, r.phase_by) for r in cohort.records] == [
    ('1000015_2_ED', 'first_frame'),
    ('1000015_2_ES', 'smallest_pool'),
  ]
  phases(cohort, beat)


def test_a_mixed_series_is_split_into_its_slices(tmp_path, pack, beat):
  pack('1000015_20209_2_0.zip', series='CINE_segmented_SAX')
  phases(read(str(tmp_path / 'root')), beat)


def test_visits_fields_and_attributes_come_from_their_columns(tmp_path, pack):
  for name in ('1000015_20209_2_0', '1000015_20209_3_0', '1000015_20208_2_0'):
    pack(f'{name}.zip', extra=False)
  schema = Schema(
    (
      Attribute('AGE', low=18, high=95),
      Attribute('SEX', 'categorical', categories=(0, 1), column='31-0.0'),
      Attribute('LVEDV', low=30, high=350, column='22421-{visit}.0'),
    )
  )
  root = tmp_path / 'root'
  with pytest.raises(ValueError, match=r"no column '22421-3\.0'"):
    read(str(root), schema)
  text = ROWS.replace('22421-2.0', 'p22421_i2').replace(',150.5', ',150.5,140')
  (root / 'ukb.csv').write_text(
    text.replace('_i2', '_i2,p22421_i3').replace('21003-3.0', 'f.21003.3.0')
  )
  found = {r.id: dict(r.attributes) for r in read(str(root), schema).records}
  assert found == {
    '1000015_2_ED': {'AGE': 66.0, 'SEX': 1, 'LVEDV': 150.5},
    '1000015_2_ES': {'AGE': 66.0, 'SEX': 1, 'LVEDV': 150.5},
    '1000015_3_ED': {'AGE': 70.0, 'SEX': 1, 'LVEDV': 140.0},
    '1000015_3_ES': {'AGE': 70.0, 'SEX': 1, 'LVEDV': 140.0},
  }
  assert len(read(str(root), schema, field='20208').records) == 2


def test_an_absent_age_comes_from_the_year_of_birth_and_a_repaired_date(tmp_path, pack):
  pack('1000027_20209_2_0.zip', extra=False)
  pack('1000039_20209_2_0.zip', extra=False, table='')
  pack('1000041_20209_2_0.zip', extra=False)
  cohort = read(str(tmp_path / 'root'))
  ages = [r.attributes['AGE'] for r in cohort.records if r.phase == 'ED']
  assert ages == [2015 - 1948, None, None]
  assert cohort.records[0].attributes['ESED'] == 1
  assert any('1000041: without a row' in note for note in cohort.notes)
  assert any('1 patients of ukb.csv have no scan' in note for note in cohort.notes)


def test_a_zip_that_lacks_files_of_its_manifest_is_refused_with_numbers(tmp_path, pack):
  path = pack('1000015_20209_2_0.zip')
  with zipfile.ZipFile(path) as archive:
    content = {n: archive.read(n) for n in archive.namelist()}
  del content['1.3.12.2.0.dcm']
  with zipfile.ZipFile(path, 'w') as archive:
    for name, text in content.items():
      archive.writestr(name, text)
  with pytest.raises(ValueError, match='lacks 1 of the 15 files'):
    read(str(tmp_path / 'root')).records[0].source.read()


def test_a_zip_without_the_short_axis_is_a_verdict_that_quotes_no_description(
  tmp_path, pack
):
  pack('1000015_20209_2_0.zip', series='SECRET_{}', extra=False)
  with pytest.raises(ValueError, match='holds 3 series, none of them') as error:
    read(str(tmp_path / 'root')).records[0].source.read()
  assert 'SECRET' not in str(error.value)


def test_a_root_without_zips_and_a_repeated_row_are_errors(tmp_path, pack):
  root = tmp_path / 'root'
  with pytest.raises(ValueError, match=r'no <eid>_20209_2_0\.zip'):
    read(str(root))
  (root / 'ukb.csv').write_text(ROWS + ROWS.splitlines()[1] + '\n')
  with pytest.raises(ValueError, match="'1000015' appears twice"):
    read(str(root))
