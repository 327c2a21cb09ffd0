"""Laws of untrusted files: what may be opened, and streams in bounded pieces."""

import gzip
import hashlib
import os

import pytest

from ldm_jax.data.readers import streams

CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize('pack', [bytes, gzip.compress], ids=['plain', 'packed'])
def test_a_stream_gives_the_content_whether_packed_or_not(tmp_path, pack):
  (tmp_path / 'a').write_bytes(pack(CONTENT))
  with streams.Stream(tmp_path / 'a') as stream:
    start, rest = stream.read(10), bytearray(100)
    stream.skip(90)
    stream.fill(memoryview(rest))
    assert (start, bytes(rest)) == (CONTENT[:10], CONTENT[100:200])
    assert stream.read(10**6) == CONTENT[200:]
    stream.check_end()
    with pytest.raises(EOFError, match='3 bytes'):
      stream.fill(memoryview(bytearray(3)))


def test_archives_laid_end_to_end_are_one_stream_and_padding_is_ignored(tmp_path):
  halves = CONTENT[:5000], CONTENT[5000:]
  packed = b''.join(map(gzip.compress, halves)) + bytes(50)
  (tmp_path / 'a').write_bytes(packed)
  with streams.Stream(tmp_path / 'a') as stream:
    assert stream.read(10**6) == CONTENT


@pytest.mark.parametrize('harm', [lambda c: c[:-9], lambda c: c[:-8] + bytes(8)])
def test_a_cut_archive_or_a_wrong_checksum_is_damaged(tmp_path, harm):
  (tmp_path / 'a').write_bytes(harm(gzip.compress(CONTENT)))
  with streams.Stream(tmp_path / 'a') as stream, pytest.raises(streams.DAMAGED):
    stream.read(len(CONTENT))
    stream.check_end()


def test_only_regular_files_are_opened(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  os.symlink('loop', tmp_path / 'loop')
  for name, words in {
    'none': 'does not exist',
    'pipe': 'is a pipe',
    '.': 'is a folder',
    'loop': 'cannot be read',
    'a\0b': 'cannot be read',
  }.items():
    with pytest.raises(ValueError, match=rf'{words}.*expected a scan\. Look again\.'):
      streams.require_file(f'{tmp_path}/{name}', 'a scan', 'Look again.')


def test_a_digest_is_that_of_the_bytes_and_a_long_path_is_shortened(tmp_path):
  (tmp_path / 'a').write_bytes(CONTENT)
  expected = hashlib.sha256(CONTENT).digest()
  assert streams.digest(tmp_path / 'a', 'a scan', '') == expected
  with pytest.raises(ValueError) as error:
    streams.digest('x' * 5000, 'a scan', '')
  assert len(str(error.value)) < 600


def test_a_file_of_the_wrong_kind_is_recognised_by_its_first_bytes():
  assert streams.kind_of(b'') == 'an empty file'
  assert streams.kind_of(gzip.compress(b'x')) == 'a gzip archive'
  assert streams.kind_of(bytes(128) + b'DICM') == 'a DICOM file'
  assert streams.kind_of(b'version https://git-lfs.github.com').endswith('downloaded')
  assert streams.kind_of(b'hello') == ''
