"""The arms of a sweep: what a config's function `sweep()` returns."""

import re
import runpy

from ldm_jax.config import checks, parsing


def read_arms(spec: str, group: str = '', pattern: str = '') -> dict[str, dict]:
  """Name of each arm, usable as a folder -> its overrides.

  Args:
    spec: CONFIG[:ARGS]; its sweep() returns arms, or groups of arms by name. Arms are a
      list of overrides, or a dict of them by name.
    group: '' for the first.
    pattern: regular expression that the names of the wanted arms match.

  Raises:
    ValueError: if the config has no sweep(), no such group or arm, or an override does
      not fit the config.
  """
  found = runpy.run_path(str(parsing.config_file(spec.partition(':')[0]))).get('sweep')
  if found is None:
    raise ValueError(f'{spec} has no function sweep(); see configs/cardiac.py for one.')
  groups = found()
  if isinstance(groups, list):
    groups = {'': groups}
  if group not in groups and group:
    raise ValueError(
      f'{spec} has no group {group!r} of arms; --group is one of {", ".join(groups)}.'
    )
  arms = {}
  for name, overrides in _named(groups[group or next(iter(groups))]):
    if re.search(pattern, name):
      checks.check(parsing.override(parsing.load(spec, overrides), overrides))
      arms[re.sub(r'[^\w.,=+-]', '_', name)[:200]] = overrides
  if not arms:
    raise ValueError(f'{spec} has no arm whose name matches --arms={pattern}.')
  return arms


def _named(arms):
  """(name, overrides) of a list or a dict of arms."""
  if isinstance(arms, dict):
    return arms.items()
  text = lambda overrides: ','.join(f'{key}={v}' for key, v in overrides.items())
  return [(text(overrides), overrides) for overrides in arms]
