"""A config from its file: Python, or the config.json of a work folder.

`--config=W/config.json` runs with the settings of W's last command, its flags included:
lists become the tuples that they were, and every value stays as it is, so that
fingerprints agree.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.types import Config


def load(spec: str, flags: Mapping[str, Any] | None = None) -> Config:
  """Loads `path/to/config.py[:argument]` or `path/to/config.json`.

  `flags` are those of `parsing.load`.

  Raises:
    ValueError: there is no such file, or it is no config.
  """
  path, _, argument = spec.partition(':')
  if pathlib.Path(path).suffix != '.json' or not pathlib.Path(path).is_file():
    return parsing.load(spec, flags)
  if argument:
    raise ValueError(
      f'{path} holds all settings of a command and takes no argument, got '
      f'{argument!r}. Change single keys by flags like --config.adapt.steps=200.'
    )
  return read(path)


def read(path: str | pathlib.Path) -> Config:
  """The ConfigDict of a config.json; keys that it lacks have their default values.

  Raises:
    ValueError: the file is no JSON of a config, or has a key that no config has.
  """
  path = pathlib.Path(path)
  try:
    plain = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{path} cannot be read as a config ({error}). Give a config.json that a work '
      'folder holds, or a Python file like configs/folder.py.'
    ) from error
  if not isinstance(plain, dict) or not set(plain) & set(defaults()):
    raise ValueError(
      f'{path} is not the config.json of a work folder: expected the sections '
      f'{", ".join(defaults())}. Give such a file, or a Python file like '
      'configs/folder.py.'
    )
  return from_plain(plain, path)


def from_plain(plain: Mapping[str, Any], path: Any) -> Config:
  """The ConfigDict of nested plain values; lists become the tuples that they were.

  Args:
    plain: sections of a config; keys that it lacks have their default values.
    path: where it is from, for the error.

  Raises:
    ValueError: a key that no config has.
  """
  config = defaults()
  _fill(config, plain, '', path)
  return config


def _fill(section: Config, plain: Mapping[str, Any], prefix: str, path: Any) -> None:
  # What a layout takes is its own, and attributes are the user's.
  is_open = prefix.endswith(('options.', '.set.', '.within_patient.'))
  with section.unlocked(), section.ignore_type():
    for key, value in plain.items():
      if key not in section and not is_open:
        known = [f'{prefix}{name}' for name in parsing.flatten(section)]
        raise ValueError(
          f'{path} has the key {prefix}{key}, which no config of this version has.'
          f'{parsing.suggest(prefix + key, known)} Remove it from a copy of the file.'
        )
      if isinstance(value, dict) and isinstance(section.get(key), ConfigDict):
        _fill(section[key], value, f'{prefix}{key}.', path)
      else:
        section[key] = _tuples(value)


def _tuples(value):
  """The value with tuples in place of lists, at any depth."""
  if isinstance(value, list):
    return tuple(map(_tuples, value))
  if isinstance(value, dict):
    return {key: _tuples(part) for key, part in value.items()}
  return value
