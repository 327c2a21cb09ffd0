"""Text of a table's cell -> value: '62,5' -> 62.5, '6 years' -> 6.0.

The functions return None for ambiguous or other text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

PER_YEAR = {'y': 1.0, 'm': 12.0, 'w': 365.25 / 7, 'd': 365.25}
UNITS = re.compile(r'(y(ears?|rs?)?|m(onths?|os?)?|w(eeks?|ks?)?|d(ays?)?)\.?(\s+old)?')
# One comma before three digits: a thousand here, a fraction there.
AMBIGUOUS = re.compile(r'[+-]?[1-9]\d{0,2},\d{3}')
# Ambiguous only in a column with decimal commas.
DOTTED = re.compile(r'[+-]?[1-9]\d{0,2}\.\d{3}')
DECIMAL_COMMA = re.compile(r'[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+')
DECIMAL_POINT = re.compile(r'[+-]?(\d*|\d{1,3}(,\d{3})+)\.\d+')
# Digits are not here: they mean something else in every data set.
SEXES = {
  **dict.fromkeys(('f', 'f.', 'female', 'females', 'fem', 'woman', 'girl', 'w'), 'F'),
  **dict.fromkeys(('weiblich', 'frau', 'femme', 'féminin', 'femenino'), 'F'),
  **dict.fromkeys(('m', 'm.', 'male', 'males', 'man', 'boy'), 'M'),
  **dict.fromkeys(('männlich', 'mann', 'homme', 'masculin', 'masculino'), 'M'),
}
FEMALE_MALE = {word: int(sex == 'M') for word, sex in SEXES.items()}
# A space or an apostrophe before three digits: 1 324,5 and 1'324.5.
THOUSANDS = re.compile(r"(?<=\d)[\s'\u2019](?=\d{3}(?!\d))")
# Words of a column's name between other characters and before a capital letter.
WORDS = re.compile(r'[A-Z]?[a-z]+|[A-Z]+(?![a-z])')


def category(value: object, categories: Sequence[object]) -> int | None:
  """Index of the category that a cell means, None where it means none or several.

  In this order: the same text, the same number ('1.0' is 1), the same letters in upper
  or lower case, and for the two sexes their usual words ('female' is F).
  """
  text = ' '.join(str(value).split())
  found = [i for i, c in enumerate(categories) if text == str(c)]
  as_number = number(text)
  if not found and as_number is not None:
    found = [i for i, c in enumerate(categories) if number(c) == as_number]
  folded = text.casefold()
  if not found:
    found = [i for i, c in enumerate(categories) if folded == str(c).casefold()]
  if not found and folded in SEXES:
    sexes = [SEXES.get(str(c).casefold()) for c in categories]
    found = [i for i, sex in enumerate(sexes) if sex == SEXES[folded]]
  return found[0] if len(found) == 1 else None


def names_age(column: str) -> bool:
  """Whether a column is named after an age: 'age', 'Age_at_scan', 'PatientAge'."""
  return 'age' in (word.lower() for word in WORDS.findall(column))


def number(text: object, decimal_comma: bool = False) -> float | None:
  """A finite number, with a decimal point or a decimal comma.

  Args:
    text: of the cell.
    decimal_comma: whether the cell's column has decimal commas (see `decimal_comma`).
      Then '1,234' is 1.234, and '1.234' is ambiguous.
  """
  text = THOUSANDS.sub('', str(text).strip())
  if decimal_comma and DOTTED.fullmatch(text):
    return None
  if decimal_comma or not AMBIGUOUS.fullmatch(text):
    if DECIMAL_COMMA.fullmatch(text):
      text = text.replace('.', '').replace(',', '.')
    elif re.fullmatch(r'[+-]?\d{1,3}(,\d{3})+\.\d+', text):
      text = text.replace(',', '')
  try:
    value = float(text)
  except ValueError:
    return None
  return value if math.isfinite(value) else None


def decimal_comma(texts: Iterable[str], separator: str) -> bool:
  """Whether the cells of a column write decimal commas.

  True if a cell can mean nothing else ('62,5', '1324,125'), or if there are cells like
  '1,234' in a table separated by semicolons, which programs write where the comma is
  the decimal mark. False wherever another cell has a decimal point.

  Args:
    texts: of the column's cells.
    separator: of the table's cells.
  """
  bare = (re.sub(r'^[<>=~ ]+|[^\d.,]+$', '', text) for text in texts)
  texts = [THOUSANDS.sub('', text) for text in bare]
  open_ones = [text for text in texts if AMBIGUOUS.fullmatch(text)]
  commas = [text for text in texts if DECIMAL_COMMA.fullmatch(text)]
  points = [t for t in texts if DECIMAL_POINT.fullmatch(t) and not DOTTED.fullmatch(t)]
  has_commas = len(commas) > len(open_ones) or (bool(open_ones) and separator == ';')
  return has_commas and not points


def years(text: object, decimal_comma: bool = False) -> float | None:
  """An age in years: '6', '6 years', '18 months', DICOM's '045Y', BIDS's '89+'.

  `decimal_comma` as in `number`.
  """
  text = THOUSANDS.sub('', str(text).strip().lower().lstrip('<>=~ '))
  match = re.fullmatch(r'([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*\+?\s*([a-z. ]*)', text)
  if match is None or (match[2] and not UNITS.fullmatch(match[2])):
    return None
  value = number(match[1], decimal_comma)
  return None if value is None else value / PER_YEAR[(match[2] or 'y')[0]]
