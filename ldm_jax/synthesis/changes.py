"""Reads `counterfactual.set`: text such as `age=+10` -> changed attributes (k,)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.data.cohorts.attributes import Schema, is_missing

# Names of the healthy category in various data sets; `healthy` stands for any of them.
HEALTHY = ('healthy', 'normal', 'control', 'cn', 'hc', 'nor')


def in_turn(changes: Mapping[str, Any], number: int) -> dict:
  """The changes for patient `number`: of '+5|+10|+20', each patient gets one in turn.

  Whether a change follows its request can only be seen with requests that differ. All
  scans of a patient get the same request, because their results are averaged.
  """
  found = {}
  for name, value in changes.items():
    choices = value.split('|') if isinstance(value, str) else [value]
    found[name] = choices[number % len(choices)]
  return found


def parse_changes(
  changes: Mapping[str, Any], schema: Schema, attributes: np.ndarray
) -> np.ndarray:
  """Applies requested changes to encoded attributes (k,) -> float32 (k,).

  '+10' or '-5' is relative to the source, a number or '42' absolute ('=-5' for a
  negative one), a categorical attribute takes a category's name in any case (`healthy`
  is CN, NOR, ... where that is a category), None means unknown.
  Attributes that are not named stay bit-identical.

  Raises:
    ValueError: unknown attribute, unknown category, a relative change of a category or
      of a missing value, or a result outside the attribute's range.
  """
  changed = np.array(attributes, np.float32)
  if changed.shape != (len(schema),):
    raise ValueError(
      f'Expected attributes of shape ({len(schema)},), got {changed.shape}; encode '
      'them with the schema of the model.'
    )
  unknown = [name for name in changes if name not in schema.names]
  if unknown:
    raise ValueError(
      f'Cannot change {unknown}: the model knows the attributes {list(schema.names)}. '
      'Change counterfactual.set.'
    )
  for i, attribute in enumerate(schema):
    if attribute.name in changes:
      value = changes[attribute.name]
      changed[i] = _apply_change(attribute, float(changed[i]), value)
  return changed


def _apply_change(attribute, code, value):
  """Encoded value of one attribute after the change; code is the source's."""
  text = str(value).strip()
  relative = isinstance(value, str) and text[:1] in ('+', '-')
  if is_missing(value):
    return np.nan
  if not relative:
    new = attribute.encode(_healthy(attribute, text.removeprefix('=')))
  elif attribute.kind == 'categorical':
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: it is one of '
      f'{list(attribute.categories)}. Name one in counterfactual.set.'
    )
  elif np.isnan(code):
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: the source has no value for it. '
      'Set an absolute number in counterfactual.set.'
    )
  else:
    new = code + 2 * _step(attribute, text) / (attribute.high - attribute.low)
  # Float32 codes are rounded by about 1e-7, which must not put a value out of range.
  if attribute.kind == 'continuous' and abs(new) > 1 + 1e-5:
    raise ValueError(
      f'{attribute.name} = {text} leads to {attribute.decode(new):g}, outside its '
      f'range [{attribute.low:g}, {attribute.high:g}] {attribute.unit}'.rstrip()
      + '. Change counterfactual.set.'
    )
  return new


def _healthy(attribute, text):
  """The category that a text means: in any case, and with the names of HEALTHY."""
  if attribute.kind != 'categorical' or text in map(str, attribute.categories):
    return text
  names = {str(category).lower(): str(category) for category in attribute.categories}
  if text.lower() in names:
    return names[text.lower()]
  known = [names[word] for word in HEALTHY if word in names]
  return known[0] if text.lower() in HEALTHY and len(known) == 1 else text


def _step(attribute, text):
  """Reads the number of a relative change; the error names the attribute."""
  try:
    number = float(text)
  except ValueError:
    number = np.nan
  if not np.isfinite(number):
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: expected a number such as +10. '
      'Change counterfactual.set.'
    )
  return number
