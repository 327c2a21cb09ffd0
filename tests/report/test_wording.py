"""Laws of numbers in words."""

import pytest

from ldm_jax.report import wording


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (1.23456, '1.23'),
    (12345.6, '12,346'),
    (1e-5, '10⁻⁵'),
    (2.5e-7, '2.5·10⁻⁷'),
    (-0.5, '−0.5'),
    (0, '0'),
    (None, '–'),
    (float('nan'), '–'),
    (float('inf'), '∞'),
    (True, '–'),
  ],
)
def test_numbers_keep_three_digits(value, text):
  assert wording.number(value) == text


def test_percentages_below_one_hundred_never_read_one_hundred():
  assert wording.percent(0.99996) == '99.996 %'
  assert wording.percent(1.0) == '100 %'
  assert wording.percent(0.5) == '50 %'


def test_measured_reads_numbers_and_dicts_alike():
  assert wording.measured(2.0).text == '2'
  entry = {'value': 2.0, 'low': 1.0, 'high': 3.0, 'n': 8, 'internal': True}
  figure = wording.measured(entry)
  assert (figure.text, figure.counts, figure.internal) == ('2 (1 to 3)', 'n = 8', True)
  assert wording.measured('text') is None
