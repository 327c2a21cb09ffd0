"""Laws of reading what a builder wrote; the round trip is in test_tfds_builders."""

import json

import pytest

from ldm_jax.data.layouts import tfds


@pytest.mark.parametrize('content', ['{}', '{"cohort": "no json"}', 'no json', '[]'])
def test_a_folder_where_nothing_was_built_is_an_error_that_says_how(tmp_path, content):
  (tmp_path / 'metadata.json').write_text(content)
  with pytest.raises(ValueError, match='python -m ldm_jax'):
    tfds.read(str(tmp_path))


def test_a_folder_that_is_not_there_is_named(tmp_path):
  with pytest.raises(ValueError, match='nowhere'):
    tfds.read(str(tmp_path / 'nowhere'))


def test_a_built_scan_has_the_fingerprint_of_its_file(tmp_path):
  source = tfds.BuiltSource(str(tmp_path), 3, json.dumps('abc'))
  assert source.fingerprint() == json.dumps('abc')
