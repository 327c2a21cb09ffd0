"""Laws of fingerprints: known for unchanged files only, and never for fresh ones."""

import os
import time

from ldm_jax.data.cohorts.cohort import FileSource
from ldm_jax.data.store.fingerprints import RESOLUTION_SECONDS, Fingerprints


def source_of(path, age_seconds):
  path.write_bytes(b'scan')
  changed = time.time() - age_seconds
  os.utime(path, (changed, changed))
  return FileSource(str(path))


def test_what_was_remembered_is_known_to_the_next_run(tmp_path, monkeypatch):
  source = source_of(tmp_path / 'a.nii', 60)
  known = Fingerprints(tmp_path / 'f.json')
  assert known.of(source) is None
  known.remember(source, 'print', time.time())
  known.save()
  assert Fingerprints(tmp_path / 'f.json').of(source) == 'print'


def test_a_changed_or_removed_file_is_unknown(tmp_path):
  source, known = source_of(tmp_path / 'a.nii', 60), Fingerprints(tmp_path / 'f.json')
  known.remember(source, 'print', time.time())
  source_of(tmp_path / 'a.nii', 50)
  assert known.of(source) is None
  (tmp_path / 'a.nii').unlink()
  assert known.of(source) is None


def test_a_file_written_just_before_it_was_hashed_is_not_trusted(tmp_path):
  source = source_of(tmp_path / 'a.nii', 0)
  known, now = Fingerprints(tmp_path / 'f.json'), time.time()
  known.remember(source, 'print', now + RESOLUTION_SECONDS / 2)
  assert known.of(source) is None
  known.remember(source, 'print', now + 2 * RESOLUTION_SECONDS)
  assert known.of(source) == 'print'


def test_a_damaged_file_of_fingerprints_or_a_source_without_files_knows_nothing(
  tmp_path,
):
  (tmp_path / 'f.json').write_text('{')
  known = Fingerprints(tmp_path / 'f.json')
  known.remember(object(), 'print', time.time())
  known.save()
  assert known.of(object()) is None and (tmp_path / 'f.json').read_text() == '{'
