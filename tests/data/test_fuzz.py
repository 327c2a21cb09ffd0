"""Laws that hold for any bytes: a reader answers or raises a ValueError that says why.

`LDM_JAX_FUZZ=100000` runs so many examples, with new seeds, instead of the usual few.
"""

import gzip
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers import volume
from ldm_jax.data.tables import table
from tests.data import hostile, hostile_trees

EXAMPLES = int(os.environ.get('LDM_JAX_FUZZ', 0))
few = settings(
  max_examples=EXAMPLES or 100,
  derandomize=not EXAMPLES,
  database=None,
  deadline=None,
  suppress_health_check=list(HealthCheck),
)
# Numbers at which fields of a header change their meaning, in all widths and orders.
EDGES = [
  kind.to_bytes(width, order, signed=True)
  for kind in (-1, 0, 1, 2, 7, 8, 127, -128)
  for width in (1, 2, 4, 8)
  for order in ('little', 'big')
] + [np.float32(x).tobytes() for x in (np.nan, np.inf, 1e30, -1, 1e-30, 0.5)]
SPEC = preprocess.Spec((3, 8, 8), (None, 1.5, 1.5))


def mutations(content, hot=None):
  """Bytes near `content`: overwritten, cut out, doubled, mostly before `hot`."""
  place = st.integers(0, len(content) - 1)
  place = place if hot is None else st.one_of(st.integers(0, hot), place)
  piece = st.one_of(st.sampled_from(EDGES), st.binary(min_size=1, max_size=8))
  edit = st.tuples(st.sampled_from(('over', 'cut', 'end', 'insert')), place, piece)
  return st.lists(edit, min_size=1, max_size=4).map(lambda e: _edited(content, e))


def _edited(content, edits):
  content = bytearray(content)
  for kind, place, piece in edits:
    if kind == 'over':
      content[place : place + len(piece)] = piece
    elif kind == 'insert':
      content[place:place] = piece
    elif kind == 'cut':
      del content[place : place + len(piece)]
    elif place > 400:
      del content[place:]
  return bytes(content)


def answers(read, path):
  """The result of `read`, or None after a ValueError that names the file."""
  try:
    return read(path)
  except ValueError as error:
    assert type(error) is ValueError, repr(error)
    assert str(path) in str(error) and len(str(error)) < 2000
    return None


def read_scan(path):
  scan = answers(volume.read, path)
  if scan is None:
    return
  assert scan.array.dtype == np.float32 and np.isfinite(scan.array).all()
  assert np.linalg.matrix_rank(scan.affine) == 4
  try:
    result = preprocess.apply(SPEC, scan)
  except ValueError as error:
    assert type(error) is ValueError, repr(error)
    return
  assert result.array.shape == SPEC.shape and np.isfinite(result.array).all()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  return tmp_path_factory.mktemp('fuzz')


PLAIN = hostile.nifti()


@few
@given(content=mutations(PLAIN, hot=352))
def test_any_bytes_are_a_scan_or_a_clear_error(place, content):
  (place / 'a.nii').write_bytes(content)
  read_scan(place / 'a.nii')
  answers(volume.read_label, place / 'a.nii')


@few
@given(content=mutations(PLAIN, hot=352))
def test_packed_they_are_the_same_scan_or_the_same_error(place, content):
  (place / 'b.nii.gz').write_bytes(gzip.compress(content, 1))
  read_scan(place / 'b.nii.gz')


@few
@given(content=mutations(gzip.compress(PLAIN), hot=20))
def test_a_damaged_archive_is_a_scan_or_a_clear_error(place, content):
  (place / 'c.nii.gz').write_bytes(content)
  read_scan(place / 'c.nii.gz')


SCHEMA = Schema.from_config(
  [{'name': 'age', 'low': 0, 'high': 100}, {'name': 'sex', 'categories': 'FM'}]
)


def read_table(path):
  found = answers(table.read, path)
  if found is None:
    return
  assert len(set(found.columns) - {''}) == len([c for c in found.columns if c])
  assert len(found.rows) == len(found.lines) > 0
  for index in range(len(found.rows)):
    answers(lambda _, index=index: found.attributes(index, SCHEMA), path)


@few
@given(content=mutations(hostile_trees.text().encode()))
def test_a_damaged_table_is_a_table_or_a_clear_error(place, content):
  (place / 'd.tsv').write_bytes(content)
  read_table(place / 'd.tsv')


CELLS = st.text(st.characters(exclude_categories=['Cs']), max_size=12)


@few
@given(
  rows=st.lists(st.lists(CELLS, max_size=4), max_size=6), mark=st.sampled_from(',;\t')
)
def test_any_text_is_a_table_or_a_clear_error(place, rows, mark):
  lines = [f'id{mark}age{mark}sex', *(mark.join(row) for row in rows)]
  (place / 'e.csv').write_text('\n'.join(lines), encoding='utf-8', newline='')
  read_table(place / 'e.csv')
