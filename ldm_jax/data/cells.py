"""What people write into a table's cell, as a value: '62,5' -> 62.5, '6 years' -> 6.0.

The functions return None for what they cannot read without guessing.
"""

from __future__ import annotations

import math
import re

PER_YEAR = {'y': 1.0, 'm': 12.0, 'w': 365.25 / 7, 'd': 365.25}
UNITS = re.compile(r'(y(ears?|rs?)?|m(onths?|os?)?|w(eeks?|ks?)?|d(ays?)?)\.?(\s+old)?')
# One comma before three digits: a thousand here, a fraction there.
AMBIGUOUS = re.compile(r'[+-]?[1-9]\d{0,2},\d{3}')
# Digits mean something else in every data set.
SEXES = {'f': 'F', 'female': 'F', 'm': 'M', 'male': 'M'}
FEMALE_MALE = {'f': 0, 'female': 0, 'm': 1, 'male': 1}


def number(text: object) -> float | None:
  """A finite number, with a decimal point or a decimal comma."""
  text = str(text).strip()
  if not AMBIGUOUS.fullmatch(text):
    if re.fullmatch(r'[+-]?\d{1,3}(\.\d{3})*,\d+', text):
      text = text.replace('.', '').replace(',', '.')
    elif re.fullmatch(r'[+-]?\d{1,3}(,\d{3})+\.\d+', text):
      text = text.replace(',', '')
  try:
    value = float(text)
  except ValueError:
    return None
  return value if math.isfinite(value) else None


def years(text: object) -> float | None:
  """An age in years: '6', '6 years', '18 months', DICOM's '045Y', BIDS's '89+'."""
  text = str(text).strip().lower().lstrip('<>=~ ')
  match = re.fullmatch(r'([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*\+?\s*([a-z. ]*)', text)
  if match is None or (match[2] and not UNITS.fullmatch(match[2])):
    return None
  value = number(match[1])
  return None if value is None else value / PER_YEAR[(match[2] or 'y')[0]]
