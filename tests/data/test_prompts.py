"""Sentences from attributes: number, word, bin; missing values are left out."""

import pytest

from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA, Attribute, Schema
from ldm_jax.data.prompts import phrase, prompt

SCHEMA = Schema(
  (
    Attribute('age', low=18, high=95, unit='years'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
    Attribute('diagnosis', 'categorical', categories=('none', 'infarction')),
    Attribute('volume', low=30, high=330, unit='ml'),
  )
)
TEMPLATE = 'a[ {age}][ {sex}] patient[ with {diagnosis}]'
WORDS = {'sex': {'F': 'female', 'M': 'male'}}


@pytest.mark.parametrize(
  ('style', 'expected'),
  [
    ('number', 'a 66 year old female patient with infarction'),
    ('word', 'an elderly female patient with infarction'),
    ('bin', 'a 60-69 year old female patient with infarction'),
  ],
)
def test_patient_information_is_told_as_number_word_or_bin(style, expected):
  values = {'age': 66, 'sex': 'F', 'diagnosis': 'infarction'}
  assert prompt(TEMPLATE, values, SCHEMA, style, WORDS) == expected


def test_what_is_missing_is_left_out_with_its_words():
  values = {'age': None, 'sex': 'M', 'diagnosis': 'n/a'}
  assert prompt(TEMPLATE, values, SCHEMA, words=WORDS) == 'a male patient'
  assert prompt(TEMPLATE, {}, SCHEMA) == 'a patient'
  with pytest.raises(ValueError, match='brackets'):
    prompt('a {age} patient', {}, SCHEMA)


@pytest.mark.parametrize(
  ('age', 'word'),
  [(5, 'child'), (18, 'teenage'), (39, 'young'), (40, 'middle-aged'), (65, 'elderly')],
)
def test_ages_have_words(age, word):
  assert phrase(SCHEMA['age'], age, 'word') == word


def test_other_measures_are_told_within_their_range():
  volume = SCHEMA['volume']
  assert phrase(volume, 142.97) == '143 ml'
  assert phrase(volume, 142.97, 'bin') == '120-150 ml'
  told = [phrase(volume, v, 'word') for v in (0, 60, 180, 330, 900)]
  assert told == ['low', 'low', 'medium', 'high', 'high']
  assert phrase(CARDIAC_SCHEMA['SEX'], '1', words={1: 'male'}) == 'male'


@pytest.mark.parametrize(
  ('age', 'article'), [(8, 'an'), (11, 'an'), (18, 'an'), (80, 'an'), (19, 'a')]
)
def test_articles_follow_the_sound(age, article):
  assert prompt('a {age}', {'age': age}, SCHEMA).startswith(f'{article} {age} ')


def test_unknown_attributes_styles_and_values_are_named():
  with pytest.raises(ValueError, match="'weight' is not in the schema"):
    prompt('{weight}', {}, SCHEMA)
  with pytest.raises(ValueError, match="style is 'roman'"):
    phrase(SCHEMA['age'], 66, 'roman')
  with pytest.raises(ValueError, match="'sex' has the value 'X'"):
    prompt('{sex}', {'sex': 'X'}, SCHEMA)
