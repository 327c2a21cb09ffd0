"""Text of a table's cell -> value: '62,5' -> 62.5, '6 years' -> 6.0.

The functions return None for ambiguous or other text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

PER_YEAR = {'y': 1.0, 'm': 12.0, 'w': 365.25 / 7, 'd': 365.25}
UNITS = re.compile(r'(y(ears?|rs?)?|m(onths?|os?)?|w(eeks?|ks?)?|d(ays?)?)\.?(\s+old)?')
# One comma before three digits: a thousand here, a fraction there.
AMBIGUOUS = re.compile(r'[+-]?[1-9]\d{0,2},\d{3}')
# Ambiguous only in a column with decimal commas.
DOTTED = re.compile(r'[+-]?[1-9]\d{0,2}\.\d{3}')
DECIMAL_COMMA = re.compile(r'[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+')
DECIMAL_POINT = re.compile(r'[+-]?(\d*|\d{1,3}(,\d{3})+)\.\d+')
# Digits are not here: they mean something else in every data set.
SEXES = {'f': 'F', 'female': 'F', 'm': 'M', 'male': 'M'}
FEMALE_MALE = {'f': 0, 'female': 0, 'm': 1, 'male': 1}


def number(text: object, decimal_comma: bool = False) -> float | None:
  """A finite number, with a decimal point or a decimal comma.

  Args:
    text: of the cell.
    decimal_comma: whether the cell's column has decimal commas (see `decimal_comma`).
      Then '1,234' is 1.234, and '1.234' is ambiguous.
  """
  text = str(text).strip()
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
  texts = [re.sub(r'^[<>=~ ]+|[^\d.,]+$', '', text) for text in texts]
  open_ones = [text for text in texts if AMBIGUOUS.fullmatch(text)]
  commas = [text for text in texts if DECIMAL_COMMA.fullmatch(text)]
  points = [t for t in texts if DECIMAL_POINT.fullmatch(t) and not DOTTED.fullmatch(t)]
  has_commas = len(commas) > len(open_ones) or (bool(open_ones) and separator == ';')
  return has_commas and not points


def years(text: object, decimal_comma: bool = False) -> float | None:
  """An age in years: '6', '6 years', '18 months', DICOM's '045Y', BIDS's '89+'.

  `decimal_comma` as in `number`.
  """
  text = str(text).strip().lower().lstrip('<>=~ ')
  match = re.fullmatch(r'([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*\+?\s*([a-z. ]*)', text)
  if match is None or (match[2] and not UNITS.fullmatch(match[2])):
    return None
  value = number(match[1], decimal_comma)
  return None if value is None else value / PER_YEAR[(match[2] or 'y')[0]]
