"""Numbers and figures as text: value with interval, size of sample, badge."""

import dataclasses
import math
import numbers
from typing import Any, TypeGuard

COUNTS = (
  ('n', 'n'),
  ('n_real', 'real'),
  ('n_synthetic', 'synthetic'),
  ('num_real', 'real'),
  ('num_synthetic', 'synthetic'),
  ('n_half', 'per half'),
  ('num_pairs', 'pairs'),
)
SUPERSCRIPTS = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')


@dataclasses.dataclass(frozen=True)
class Measured:
  """One figure of metrics.json.

  Attributes:
    value: the figure, or None.
    low: lower end of its 95 % interval, or None.
    high: upper end, or None.
    counts: what it was computed from, as text.
    internal: true when it was computed from private scans.
  """

  value: float | None
  low: float | None = None
  high: float | None = None
  counts: str = ''
  internal: bool = False

  @property
  def text(self) -> str:
    """Value and interval, plain text."""
    if not is_number(self.low) or not is_number(self.high):
      return number(self.value)
    return f'{number(self.value)} ({number(self.low)} to {number(self.high)})'


def measured(entry: Any, key: str = 'value', internal: bool = False) -> Measured | None:
  """Reads a bare number or a dict with value, low, high, n: -> Measured or None.

  Args:
    entry: number or dict; `key` names the value, `<key>_low` or `low` its interval.
    key: name of the value in the dict.
    internal: mark inherited from the enclosing dict.
  """
  if is_number(entry):
    return Measured(float(entry), internal=internal)
  if not isinstance(entry, dict) or key not in entry:
    return None
  low, high = (
    entry.get(f'{key}_{end}', entry.get(end) if key in ('value', 'auc') else None)
    for end in ('low', 'high')
  )
  counts = ', '.join(
    f'{entry[name]:,} {word}' if word != 'n' else f'n = {entry[name]:,}'
    for name, word in COUNTS
    if isinstance(entry.get(name), int)
  )
  value = entry[key] if is_number(entry[key]) else None
  return Measured(value, low, high, counts, internal or bool(entry.get('internal')))


def is_number(value: Any) -> TypeGuard[float]:
  """True for an int or float; false for bool, None and text."""
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number(value: Any) -> str:
  """Three significant digits, or '–' where there is no number."""
  if not is_number(value) or math.isnan(value):
    return '–'
  if math.isinf(value):
    return '∞' if value > 0 else '−∞'
  if isinstance(value, numbers.Integral) or abs(value) >= 1000:
    text = f'{value:,.0f}'
  elif value and abs(value) < 1e-3:
    mantissa, exponent = f'{value:.2e}'.split('e')
    mantissa = mantissa.rstrip('0').rstrip('.')
    power = '10' + str(int(exponent)).translate(SUPERSCRIPTS)
    text = power if mantissa == '1' else f'{mantissa}·{power}'
  else:
    text = f'{value:.3g}'
  return text.replace('-', '−', 1) if text.startswith('-') else text


def percent(share: Any) -> str:
  """A share of one as percentage; keeps enough digits to differ from 100 %."""
  if not is_number(share) or math.isnan(share):
    return '–'
  digits = 1
  while digits < 6 and share < 1 and float(f'{100 * share:.{digits}f}') >= 100:
    digits += 1
  text = f'{100 * share:.{digits}f}'
  return (text.rstrip('0').rstrip('.') if '.' in text else text) + ' %'
