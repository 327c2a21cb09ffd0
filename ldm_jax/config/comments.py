"""A config as text, every key with the comment that stands above it in its section.

Comments are read from the source of the sections (`defaults.defaults` and what it
calls), so that there is one place to write them.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from ldm_jax.config import defaults, parsing
from ldm_jax.types import Config

WIDTH = 88


def text(config: Config) -> str:
  """Lines 'key = value' of all keys, each below its comment, in the source's order."""
  said, lines, seen = of_keys(), list[str](), set[str]()
  places = {key: place for place, key in enumerate(said)}
  flat = parsing.flatten(config)
  for key in sorted(flat, key=lambda key: _place(key, places)):
    parts = key.split('.')
    names = ['.'.join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    for name in names:
      if said.get(name) and name not in seen:
        wrapped = textwrap.wrap(said[name], WIDTH - 2)
        lines += ['', *(f'# {line}' for line in wrapped)]
      seen.add(name)
    lines.append(f'{key} = {flat[key]!r}')
  return '\n'.join(lines).strip() + '\n'


def of_keys() -> dict[str, str]:
  """{key: comment} of all sections and keys, '' without one, in the source's order."""
  return _of_function(defaults.defaults, '')


def _place(key, places):
  """Where a key stands; one that the defaults lack follows its section."""
  while key and key not in places:
    key = key.rpartition('.')[0]
  return places.get(key, len(places))


def _of_function(function: Callable, prefix: str) -> dict[str, str]:
  source = textwrap.dedent(inspect.getsource(function))
  (body,) = ast.parse(source).body
  found: dict[str, str] = {}
  for node in ast.walk(body):
    if isinstance(node, ast.Return) and node.value is not None:
      found |= _of_value(node.value, prefix, source.splitlines(), function)
  return found


def _of_value(node, prefix, lines, function):
  """Comments in a dict of the source, or in what a call in it returns."""
  if isinstance(node, ast.Call):
    if node.args and isinstance(node.args[0], ast.Dict):
      return _of_value(node.args[0], prefix, lines, function)
    called = _called(node.func, function)
    return _of_function(called, prefix) if inspect.isfunction(called) else {}
  if not isinstance(node, ast.Dict):
    return {}
  found = {}
  for key, value in zip(node.keys, node.values, strict=True):
    if not isinstance(key, ast.Constant):
      continue
    name = f'{prefix}{key.value}'
    found[name] = _above(lines, key.lineno - 1)
    found |= _of_value(value, f'{name}.', lines, function)
  return found


def _called(node, function):
  names = function.__globals__
  if isinstance(node, ast.Name):
    return names.get(node.id)
  if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
    return getattr(names.get(node.value.id), node.attr, None)
  return None


def _above(lines, index):
  """The comment in the lines right above a line."""
  found = []
  while index > 0 and lines[index - 1].lstrip().startswith('#'):
    index -= 1
    found.insert(0, lines[index].strip().lstrip('#').strip())
  return ' '.join(found)
