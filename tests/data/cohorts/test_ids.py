"""Laws of ids: what may be a file's name and a table's cell."""

import pytest

from ldm_jax.data.cohorts import ids


@pytest.mark.parametrize('text', ['P1', '001', 'sub-01_ses-2', 'Müller 3', 'a' * 200])
def test_ordinary_ids_have_no_fault(text):
  assert ids.fault(text) == ''


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', 'is empty'),
    ('a/b', 'holds a path'),
    ('a\\b', 'holds a path'),
    ('a\nb', 'control characters'),
    ('=1+1', 'formula'),
    ('-rf', 'formula'),
    ('.hidden', 'begins with a dot'),
    ('ä' * 101, 'longer than 200 bytes'),
  ],
)
def test_an_unsafe_id_has_a_reason(text, words):
  assert words in ids.fault(text)
