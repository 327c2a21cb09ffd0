"""What a counterfactual asks for: text such as `sex=other` -> changed attributes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.data.cohorts.attributes import Schema, is_missing

# What data sets call the category of the healthy; one word may stand for another.
HEALTHY = ('healthy', 'normal', 'control', 'cn', 'hc', 'nor')


def in_turn(changes: Mapping[str, Any], number: int) -> dict:
  """The changes of patient `number`: of '+5|+10|+20' patients take one each, in turn.

  Requests that differ are what shows whether a change follows its request. A patient is
  one observation: if each of his scans took another, their mean would say nothing.
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
  What is not named stays bit for bit.

  Raises:
    ValueError: unknown attribute, unknown category, a relative change of a category or
      of a missing value, or a result outside the attribute's range.
  """
  changed = np.array(attributes, np.float32)
  if changed.shape != (len(schema),):
    raise ValueError(
      f'Attributes of shape {changed.shape} came; required is ({len(schema)},).'
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
  # A float32 code carries a rounding of 1e-7, which is no reason to refuse.
  if attribute.kind == 'continuous' and abs(new) > 1 + 1e-5:
    raise ValueError(
      f'{attribute.name} = {text} leads to {attribute.decode(new):g}, outside its '
      f'range [{attribute.low:g}, {attribute.high:g}] {attribute.unit}'.rstrip()
      + '. Change counterfactual.set.'
    )
  return new


def _healthy(attribute, text):
  """The category that text means, where data sets name health differently."""
  if attribute.kind != 'categorical' or text in map(str, attribute.categories):
    return text
  names = {str(category).lower(): str(category) for category in attribute.categories}
  if text.lower() in names:
    return names[text.lower()]
  known = [names[word] for word in HEALTHY if word in names]
  return known[0] if text.lower() in HEALTHY and len(known) == 1 else text


def _step(attribute, text):
  """Reads the number of a relative change, naming the attribute when it is none."""
  try:
    number = float(text)
  except ValueError:
    number = np.nan
  if not np.isfinite(number):
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: a number such as +10 is required. '
      'Change counterfactual.set.'
    )
  return number
