"""Laws of UK Biobank's manifests: broken dates are repaired, broken tables ignored."""

import zipfile

import pytest

from ldm_jax.data.readers.dicom import ukbb_manifest
from ldm_jax.data.readers.dicom.container import Container

HEADER = 'filename,patientid,series discription,date\n'
WHOLE = HEADER + 'a.dcm,1,CINE_b1,Aug 7, 2015\nb.dcm,1,LAX,Aug 8, 2015\n'


@pytest.fixture
def pack(tmp_path):
  def pack(text, name='x/manifest.csv'):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr(name, text)
    return Container(path)

  return pack


@pytest.mark.parametrize('name', ['manifest.csv', 'x/Manifest.CVS'])
def test_files_have_their_series_and_the_examination_its_year(pack, name):
  folder = name.rpartition('/')[0]
  with pack(WHOLE, name) as container:
    found = ukbb_manifest.series_of(container)
    expected = {'a.dcm': 'CINE_b1', 'b.dcm': 'LAX'}
    assert found == {f'{folder}/{k}'.lstrip('/'): v for k, v in expected.items()}
    assert ukbb_manifest.year(container) == 2015


@pytest.mark.parametrize(
  ('text', 'name'),
  [
    (WHOLE, 'other.csv'),
    ('', 'manifest.csv'),
    ('a,b\n1,2\n', 'manifest.csv'),
    (WHOLE + 'c.dcm,1\n', 'manifest.csv'),
  ],
  ids=['no_manifest', 'empty', 'other_columns', 'short_line'],
)
def test_without_a_complete_manifest_nothing_is_known(pack, text, name):
  with pack(text, name) as container:
    assert ukbb_manifest.series_of(container) == {}


@pytest.mark.parametrize(
  ('line', 'repaired'),
  [
    ('a,Aug 7, 2015,b', 'a,Aug 7 2015,b'),
    ('a,September 17,2015,b', 'a,September 17 2015,b'),
    ('a,2015-08-07,b', 'a,2015-08-07,b'),
    ('a,b 12, 34,c', 'a,b 12, 34,c'),
  ],
)
def test_only_the_comma_of_a_date_is_repaired(line, repaired):
  assert ukbb_manifest.repair(line) == repaired


def test_a_description_matches_whatever_its_case():
  assert ukbb_manifest.matches('CINE_segmented_SAX_b3', 'cine*sax_b?')
  assert not ukbb_manifest.matches('CINE_segmented_LAX', 'cine*sax*')
