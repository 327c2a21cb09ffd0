"""Laws of cells: what people write is read, what is ambiguous is not guessed."""

import pytest

from ldm_jax.data.cohorts import cells


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('62.5', 62.5),
    ('62,5', 62.5),
    (' 1e3 ', 1000),
    ('-0,125', -0.125),
    ('1.234,5', 1234.5),
    ('1,234.5', 1234.5),
    ('7', 7),
  ],
)
def test_a_number_has_a_point_or_a_comma(text, value):
  assert cells.number(text) == value


@pytest.mark.parametrize('text', ['1,234', 'fifty', '', 'inf', 'nan', '1,2,3', '=1+1'])
def test_what_is_ambiguous_or_no_number_is_not_guessed(text):
  assert cells.number(text) is None


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('6', 6),
    ('6 years', 6),
    ('6,5 yrs', 6.5),
    ('18 months', 1.5),
    ('045Y', 45),
    ('018M', 1.5),
    ('89+', 89),
    ('>89', 89),
    ('6 years old', 6),
  ],
)
def test_an_age_may_name_its_unit(text, value):
  assert cells.years(text) == value
  assert cells.years('730.5 days') == 2
  assert cells.years('52 weeks') == pytest.approx(0.997, abs=1e-3)


@pytest.mark.parametrize('text', ['six', '6 parsecs', '', '6-7', 'years'])
def test_what_is_no_age_is_not_guessed(text):
  assert cells.years(text) is None


@pytest.mark.parametrize(
  ('text', 'value'),
  [('1324,5', 1324.5), ('1324,125', 1324.125), ('1.324.125,5', 1324125.5)],
)
def test_a_decimal_comma_may_follow_any_number_of_digits(text, value):
  assert cells.number(text) == value


@pytest.mark.parametrize(
  ('texts', 'separator', 'expected'),
  [
    (('62,5', '1,234'), '\t', True),  # a cell that means nothing else tells
    (('1,234', '1,500'), ';', True),  # the semicolon tells
    (('1,234', '1,500'), ',', False),  # nothing tells
    (('1,234', '62.5'), ';', False),  # a point tells the contrary
    (('1,234.5', '1,234'), '\t', False),
    (('62,5 years', '7,125 years'), '\t', True),
    (('1.324', '1.500'), ';', False),
    (('', 'n/a', '7'), ';', False),
  ],
)
def test_a_column_tells_whether_its_commas_are_decimal(texts, separator, expected):
  assert cells.decimal_comma(texts, separator) is expected


def test_a_dot_before_three_digits_is_not_guessed_beside_decimal_commas():
  assert cells.number('1,324', decimal_comma=True) == 1.324
  assert cells.number('1.324', decimal_comma=True) is None
  assert cells.number('1.324') == 1.324


@pytest.mark.parametrize(
  ('text', 'categories', 'index'),
  [
    ('f', ('F', 'M'), 0),
    ('FEMALE', ('F', 'M'), 0),
    ('Male', ('F', 'M'), 1),
    (' m ', ('female', 'male'), 1),
    ('ad', ('CN', 'AD'), 1),
    ('1.0', (0, 1), 1),
    ('f', ('f', 'F'), 0),
    ('fe', ('F', 'M'), None),
    ('ab', ('AB', 'Ab'), None),
    ('M', (0, 1), None),  # digits mean something else in every data set
    ('F', ('F', 'female'), 0),
    ('woman', ('F', 'female'), None),
  ],
)
def test_a_category_is_recognised_in_any_spelling_that_means_one(
  text, categories, index
):
  assert cells.category(text, categories) == index


@pytest.mark.parametrize('text', ['1 324,5', "1'324,5", '1324,5', '1.324,5'])
def test_thousands_may_be_set_apart(text):
  assert cells.number(text) == 1324.5


def test_columns_named_after_an_age_are_ages():
  named = ('age', 'AGE', 'Age_at_scan', 'PatientAge', 'age at visit')
  assert all(map(cells.names_age, named))
  assert not any(map(cells.names_age, ('stage', 'Dosage', 'percentage', 'image')))
