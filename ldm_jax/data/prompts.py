"""Sentences from attributes: {'AGE': 66, 'SEX': 1} -> 'a 66 year old male'.

For users of `diffusion.text`: write a sentence per scan, embed it with any text
encoder, and save the tokens where `diffusion.text.files` says ('text/{id}.npy', see
`data.store.text_embeddings`). No stage calls this module.

    words = {'SEX': {0: 'female', 1: 'male'}}
    for record in cohort.records:
      text = prompt('a[ {AGE}][ {SEX}]', record.attributes, cohort.schema, words=words)
      np.save(f'text/{record.id}.npy', my_text_encoder(text))  # (m,e)

Patient information is written as number, word or bin.
[Yeganeh25] arXiv 2412.20651, "a <age> year old <sex> with <diagnosis>".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing

STYLES = ('number', 'word', 'bin')
YEARS = ('year', 'years', 'y')
# Each word holds below its age in years.
AGE_WORDS = (
  (13, 'child'),
  (20, 'teenage'),
  (40, 'young'),
  (65, 'middle-aged'),
  (math.inf, 'elderly'),
)
# Thirds of an attribute's range.
LEVEL_WORDS = ('low', 'medium', 'high')
NUM_BINS = 10


def prompt(
  template: str,
  values: Mapping[str, Any],
  schema: Schema,
  style: str = 'number',
  words: Mapping[str, Mapping] | None = None,
) -> str:
  """Fills a template such as 'a[ {AGE}][ {SEX}] patient[ with {diagnosis}]'.

  Args:
    template: {NAME} stands for an attribute; a part in brackets is left out when one
      of its attributes is missing. 'a' becomes 'an' before a vowel.
    values: name -> value as in the table.
    schema: of the attributes.
    style: of continuous attributes, see `phrase`.
    words: name -> category -> word, for categories that are codes ({'SEX': {0:
      'female', 1: 'male'}}).

  Raises:
    ValueError: an unknown attribute or style, a value that cannot be, or a missing one
      outside brackets.
  """
  words = words or {}

  def fill(part: str) -> str | None:
    """The part with its holes filled, None when a value is missing."""
    pieces = []
    for number, piece in enumerate(re.split(r'\{([^{}]*)\}', part)):
      if number % 2:
        piece = phrase(schema[piece], values.get(piece), style, words.get(piece))
        if not piece:
          return None
      pieces.append(piece)
    return ''.join(pieces)

  sentence = ''
  for number, part in enumerate(re.split(r'\[([^\[\]]*)\]', template)):
    filled = fill(part)
    if filled is None and not number % 2:
      raise ValueError(
        f'The prompt {part!r} needs an attribute that is missing in {dict(values)}; '
        'put the part that may be left out in [brackets].'
      )
    sentence += filled or ''
  return _articles(re.sub(r'\s+', ' ', sentence).strip())


def phrase(
  attribute: Attribute,
  value: Any,
  style: str = 'number',
  words: Mapping[Any, str] | None = None,
) -> str:
  """One attribute in words, '' when it is missing.

  Args:
    attribute: continuous or categorical; one in years is an age.
    value: as in the table.
    style: 'number' ('66 year old', '142.9 ml'), 'word' ('elderly', 'high'), 'bin'
      ('60-69 year old', '126-158 ml': decades of years, tenths of the range).
    words: category -> word.

  Raises:
    ValueError: an unknown style, or a value that the attribute cannot have.
  """
  if style not in STYLES:
    raise ValueError(f'The prompt style is {style!r}; expected one of {STYLES}.')
  if is_missing(value):
    return ''
  code = attribute.encode(value)
  if attribute.kind == 'categorical':
    category = attribute.decode(code)
    return str((words or {}).get(category, category))
  number, is_age = float(value), attribute.unit.lower() in YEARS
  unit = ' year old' if is_age else f' {attribute.unit}'.rstrip()
  if style == 'number':
    return f'{number:.4g}{unit}'
  if style == 'word':
    if is_age:
      return next(word for below, word in AGE_WORDS if number < below)
    third = math.floor((code + 1) / 2 * len(LEVEL_WORDS))
    return LEVEL_WORDS[min(max(third, 0), len(LEVEL_WORDS) - 1)]
  if is_age:
    decade = 10 * math.floor(number / 10)
    return f'{decade}-{decade + 9}{unit}'
  lowest, highest = attribute.limits
  width = (highest - lowest) / NUM_BINS
  low = lowest + width * math.floor((number - lowest) / width)
  return f'{low:.4g}-{low + width:.4g}{unit}'


def _articles(sentence: str) -> str:
  """'a elderly', 'a 80 year old' -> 'an elderly', 'an 80 year old'."""
  vowel = r'(?=[aeioAEIO]|8\d?\b|11\b|18\b|8\d\D)'
  return re.sub(rf'\b([aA]) {vowel}', r'\1n ', sentence)
