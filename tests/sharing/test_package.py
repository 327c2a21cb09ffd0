"""Laws of the folder and the zip of a shared model."""

import zipfile

import pytest

from ldm_jax.sharing import package


@pytest.fixture
def folder(tmp_path):
  place = tmp_path / 'shareable'
  (place / 'samples').mkdir(parents=True)
  for name in package.NEEDED:
    (place / name).write_text('{}')
  (place / 'samples' / 'README').write_text('x')
  package.seal(place)
  return place


def test_folder_and_zip_are_read_alike_and_equal_files_give_equal_zips(folder):
  first, second = folder.with_suffix('.zip'), folder.with_name('again.zip')
  package.write_zip(folder, first)
  (folder / 'samples' / 'README').touch()
  package.write_zip(folder, second)
  assert first.read_bytes() == second.read_bytes()
  assert package.read(folder) == package.read(first)
  assert set(package.read(first)) == set(package.NEEDED)
  names = set(package.sums((folder / package.SUMS).read_text()))
  assert names == {*package.NEEDED, 'samples/README'}


def test_a_file_that_was_changed_or_is_missing_is_named(folder):
  (folder / package.PRIVACY).write_text('{"epsilon": 0}')
  with pytest.raises(ValueError, match=r'privacy\.json is not the file whose hash'):
    package.read(folder)
  (folder / package.PRIVACY).unlink()
  with pytest.raises(ValueError, match=r'lacks privacy\.json'):
    package.read(folder)


def test_what_is_no_model_is_refused_in_one_sentence(folder, tmp_path):
  for path in (tmp_path / 'none.zip', folder / package.CONFIG):
    with pytest.raises(ValueError, match='is no model; expected the folder'):
      package.read(path)
  packed = folder.with_suffix('.zip')
  package.write_zip(folder, packed)
  content = packed.read_bytes()
  packed.write_bytes(content[:80] + b'\0' * 20 + content[100:])
  with pytest.raises(ValueError, match=r'damaged zip|hash'):
    package.read(packed)


def test_a_bomb_is_not_unpacked(folder):
  packed = folder.with_suffix('.zip')
  with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name in (*package.NEEDED, package.SUMS):
      archive.writestr(name, b'0' * (2**25 if name == package.CONFIG else 2))
  with pytest.raises(ValueError, match='expected at most'):
    package.read(packed)
  with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name in (*package.NEEDED, package.SUMS):
      archive.writestr(name, b'0' * (2**27 if name == package.WEIGHTS else 2))
  with pytest.raises(ValueError, match='compressed beyond'):
    package.read(packed)
