"""The table of a sweep: figures of its arms, and their mean and interval over repeats.

An arm's figures are those of its metrics.json by dotted names, and its epsilon.
"""

import json
import math
import pathlib
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scipy import stats

from ldm_jax import atomic
from ldm_jax.config import ablations

# Names of the figures that the table shows.
SHOWN = (
  r'epsilon|frechet|kid|two_sample\.auc|control\.[^.]+\.pearson_r'
  r'|utility\.[^.]+\.dice'
)
DISTANCES = ('frechet', 'kid')
INTERNAL = (
  'Columns marked internal were computed from private or held-out scans without noise: '
  'they must not leave.'
)


def figures(arm: pathlib.Path) -> dict[str, Any]:
  """{'control.LV_volume.pearson_r': value} of the work folder of an arm.

  Holds all numbers of its metrics.json, and its epsilon where it has a privacy.json.
  """
  found = {}
  statement = arm / 'privacy.json'
  if statement.is_file():
    found['epsilon'] = json.loads(statement.read_text())['epsilon']
  metrics = json.loads((arm / 'metrics.json').read_text())
  return found | dict(_leaves(metrics, ''))


def internal(arm: pathlib.Path) -> set[str]:
  """Names of the figures of an arm that read scans of patients who are not public."""
  metrics = json.loads((arm / 'metrics.json').read_text())
  return {name for name, _ in _leaves(_marked(metrics), '')}


def write(
  root: pathlib.Path,
  columns: Mapping[str, Mapping],
  arms: Mapping[str, Mapping],
  note: str,
  banner: str = '',
  marked: Collection[str] = (),
) -> str:
  """Writes sweep.csv (all figures of all arms), sweep.json and sweep.md.

  Args:
    root: folder of the sweep.
    columns: arm -> its figures, of the arms that have been run.
    arms: all arms -> their overrides.
    note: a caution that stands below the table.
    banner: a warning that stands above it, '' for none.
    marked: names of the figures that are internal, of `internal`.

  Returns:
    The text of sweep.md: one row for all repeats of an arm.
  """
  names = list(dict.fromkeys(key for column in columns.values() for key in column))
  figures = [
    {'figure': name, **{arm: column.get(name) for arm, column in columns.items()}}
    for name in names
  ]
  atomic.write_csv(root / 'sweep.csv', figures)
  shown = [name for name in names if re.fullmatch(SHOWN, name)]
  done = {name: arms[name] for name in columns}
  rows = [summary(members, columns, arms, shown) for members in repeats(done)]
  gained = gains(rows)
  content = {'banner': banner, 'note': note, 'rows': rows, 'gains': gained}
  content['internal'] = sorted(marked)
  atomic.write_json(root / 'sweep.json', content, allow_nan=True)
  titles = {name: f'{name} (internal)' if name in marked else name for name in shown}
  table = _table(['arm', 'runs', *titles.values()], rows, shown)
  if gained:
    distances = [name for name in shown if name in DISTANCES]
    table += '\n\nLess than without, run by run:\n\n'
    heads = [titles[name] for name in distances]
    table += _table(['addition', 'runs', *heads], gained, distances)
  reading = (
    'Brackets: 95 % interval of the mean over the runs (Student t), of one run that '
    'of its own figures. Figures without them do not vary.'
  )
  if len(done) < len(arms):
    reading = f'{len(done)} of {len(arms)} arms have been run. {reading}'
  if set(marked) & set(shown):
    reading = f'{reading} {INTERNAL}'
  table = f'{table}\n\n{reading} {note}\n'
  if banner:
    table = f'> **{banner}**\n\n{table}'
  atomic.write_text(root / 'sweep.md', table)
  return table


def repeats(arms: Mapping[str, Mapping]) -> list[list[str]]:
  """Groups the names of arms that differ only in their seeds."""
  groups: dict[str, list[str]] = {}
  for name, overrides in arms.items():
    rest = {k: v for k, v in overrides.items() if k not in ablations.SEED_KEYS}
    groups.setdefault(str(sorted(rest.items())), []).append(name)
  return list(groups.values())


def summary(
  members: Sequence[str],
  columns: Mapping[str, Mapping],
  arms: Mapping[str, Mapping],
  names: Sequence[str],
) -> dict[str, Any]:
  """One row: names and overrides of its runs, and each figure's mean and interval."""
  seeds = r',?\b(\w+\.)?seed=-?\d+'
  row: dict[str, Any] = {
    'arm': re.sub(seeds, '', members[0]) if len(members) > 1 else members[0],
    'runs': len(members),
    'overrides': [arms[member] for member in members],
    'figures': {},
  }
  for name in names:
    values = [columns[m][name] for m in members if columns[m].get(name) is not None]
    if not values:
      continue
    if any(isinstance(value, str) for value in values):  # an infinite epsilon
      row['figures'][name] = {'mean': values[0], 'values': values}
      continue
    if len(values) > 1:
      row['figures'][name] = _of_runs(values)
      continue
    low, high = None, None
    if len(members) == 1:
      low, high = _own_interval(columns[members[0]], name)
    mean = values[0]
    row['figures'][name] = {'mean': mean, 'low': low, 'high': high, 'values': values}
  return row


def partner(name: str) -> str:
  """Name of the arm without the last addition: 'x+y,seed=0' of 'x+y+z,seed=0'."""
  return re.sub(r'(?<=\w)\+\w+(?=,|$)', '', name, count=1)


def gains(rows: Sequence[Mapping]) -> list[dict]:
  """How much smaller the distances of 'x+y+z' are than those of 'x+y', as rows.

  Runs of the same seed are compared in pairs.

  Args:
    rows: of `summary`; rows without a partner of as many runs are skipped.
  """
  by_name, found = {row['arm']: row for row in rows}, []
  for row in rows:
    other = by_name.get(partner(row['arm']))
    if other in (None, row) or row['runs'] < 2 or other['runs'] != row['runs']:
      continue
    figures = {}
    for name in DISTANCES:
      with_it, without = (
        r['figures'].get(name, {}).get('values') for r in (row, other)
      )
      if with_it and without and len(with_it) == len(without):
        figures[name] = _of_runs([b - a for a, b in zip(with_it, without, strict=True)])
    found.append({'arm': row['arm'], 'runs': row['runs'], 'figures': figures})
  return found


def _of_runs(values):
  """Mean and 95 % interval (Student t) of one figure over two runs or more."""
  mean = statistics.fmean(values)
  spread = statistics.stdev(values) / math.sqrt(len(values))
  half = stats.t.ppf(0.975, len(values) - 1) * spread
  return {'mean': mean, 'low': mean - half, 'high': mean + half, 'values': values}


def _table(header, rows, names):
  lines = [header, ['---'] * len(header)]
  for row in rows:
    cells = [_cell(row['figures'].get(name)) for name in names]
    lines.append([row['arm'], str(row['runs']), *cells])
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _marked(node):
  """Of nested figures those that say that they are internal, with what is in them."""
  if not isinstance(node, dict) or node.get('internal'):
    return node if isinstance(node, dict) else {}
  return {key: found for key, value in node.items() if (found := _marked(value))}


def _leaves(node, path):
  for key, value in node.items() if isinstance(node, dict) else ():
    name = f'{path}.{key}' if path else key
    if isinstance(value, dict):
      yield from _leaves(value, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
      yield name.removesuffix('.value'), value


def _own_interval(column, name):
  """(low, high) that one run's metrics give a figure, (None, None) if none."""
  for separator in '._':
    ends = [column.get(f'{name}{separator}{end}') for end in ('low', 'high')]
    if None not in ends:
      return ends
  return None, None


def _cell(figure):
  """'0.912 [0.88, 0.94]', without brackets where there is no interval."""
  if figure is None or isinstance(figure['mean'], str):
    return figure['mean'] if figure else ''
  mean, low, high = (figure[key] for key in ('mean', 'low', 'high'))
  if low is None or high - low < 1e-3 * abs(mean):
    return f'{mean:.4g}'
  return f'{mean:.4g} [{low:.4g}, {high:.4g}]'
