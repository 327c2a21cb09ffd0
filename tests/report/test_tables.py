"""Laws of the rows of figures: which figures, which counts, which marks."""

import pytest

from ldm_jax.report import tables
from ldm_jax.report.wording import Measured


def test_every_figure_is_found_once_with_the_nearest_counts():
  metrics = {
    'kid': {'value': 1.0, 'low': 0.5, 'high': 1.5, 'n': 4},
    'pairs': {'n': 9, 'real': 0.5, 'own': {'value': 0.4, 'n': 2}},
    'scales': 3,
    'text': 'no figure',
  }
  found = {path: (f.value, f.counts) for path, f in tables.walk(metrics)}
  assert found == {
    'kid': (1.0, 'n = 4'),
    'pairs.real': (0.5, 'n = 9'),
    'pairs.own': (0.4, 'n = 2'),
  }


def test_the_mark_internal_passes_to_everything_inside():
  inner = {'a': {'value': 1.0}, 'b': {'value': 2.0, 'n': 3}}
  assert all(f.internal for _, f in tables.walk({'internal': True, **inner}))
  assert not any(f.internal for _, f in tables.walk(inner))


@pytest.mark.parametrize(
  ('entry', 'internal'),
  [({'a': {'b': {'internal': True}}}, True), ({'a': {'b': 1}}, False), (None, False)],
)
def test_a_mark_is_found_however_deep(entry, internal):
  assert tables.any_internal(entry) is internal


def test_a_row_of_a_figure_has_its_interval_counts_and_mark():
  row = tables.figure_row('x', Measured(2.0, 1.0, 3.0, 'n = 8', True), 'note')
  assert row == {
    'name': 'x',
    'cells': ['2 (1 to 3)', 'n = 8'],
    'internal': True,
    'note': 'note',
  }


def test_a_missing_figure_is_an_empty_cell():
  assert tables.cell(None) == tables.cell(Measured(None)) == ''


def test_without_an_interval_the_note_is_the_sample_size():
  assert tables.interval(Measured(1.0, 0.5, 2.0, 'n = 3')) == '95 %: 0.5 to 2'
  assert tables.interval(Measured(1.0, None, None, 'n = 3')) == 'n = 3'
