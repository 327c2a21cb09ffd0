"""The options of a cohort's section, as its layout takes them; flags give text."""

from __future__ import annotations

import ast
import difflib
import inspect
from typing import Any

from ldm_jax.config.parsing import to_plain
from ldm_jax.data import layouts
from ldm_jax.types import Config


def of_section(section: Config) -> dict[str, Any]:
  """The options of a section; lists become tuples."""
  return {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in to_plain(section.options).items()
  }


def known(layout: str) -> list[str] | None:
  """Options of a layout; None where any may be one (phantoms check their own)."""
  parameters = inspect.signature(layouts.LAYOUTS[layout].read).parameters
  if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
    return None
  return [key for key in parameters if key not in ('root', 'schema')]


def typed(name: str, layout: str, key: str, value: Any) -> Any:
  """An option as its layout takes it; flags give text.

  Raises:
    ValueError: the layout has no such option, or the text is of another type.
  """
  names, flag = known(layout), f'--config.data.{name}.options.{key}'
  if names is None:  # a phantom, whose options are numbers
    return literal(value)
  if key not in names:
    close = difflib.get_close_matches(key, names, 1)
    raise ValueError(
      f'The layout {layout!r} has no option {key!r}.'
      + (f' Did you mean {close[0]}?' if close else '')
      + f' Its options are {", ".join(names)}. Correct the flag {flag}.'
    )
  parameter = inspect.signature(layouts.LAYOUTS[layout].read).parameters[key]
  kind, required = str(parameter.annotation), ''
  if kind in ('str', "<class 'str'>"):
    return '' if value is None else str(value)
  value = literal(value)
  if kind.startswith('bool') and not isinstance(value, bool):
    required = 'True or False'
  elif kind.startswith(('int', 'float')):
    wanted = int if kind.startswith('int') else (int, float)
    fits = isinstance(value, wanted) and not isinstance(value, bool)
    if not fits and not (value is None and 'None' in kind):
      required = 'a whole number' if wanted is int else 'a number'
      required += ', or None' if 'None' in kind else ''
  elif kind.startswith('tuple'):
    value = tuple(value.split('|')) if isinstance(value, str) else value
    if not isinstance(value, tuple):
      required = 'a tuple, or words with | between them'
  if required:
    raise ValueError(
      f'config.data.{name}.options.{key} is {value!r}; expected {required}. Set '
      f'{flag}=...'
    )
  return value


def literal(value: Any) -> Any:
  """The value that a text stands for; the text itself where it is none."""
  if not isinstance(value, str):
    return value
  if value.lower() in ('true', 'false'):
    return value.lower() == 'true'
  try:
    return ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return value
