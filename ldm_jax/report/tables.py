"""Tables of the report: nested figures of metrics.json -> rows of plain text."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ldm_jax.report import wording
from ldm_jax.report.wording import Measured, is_number, measured, number

SETTINGS = {'scales', 'num_features', 'num_splits', 'seed', 'num_missing'}


def walk(entry: Any, path: str = '') -> Iterator[tuple[str, Measured]]:
  """Yields (dotted path, Measured) for every figure in nested dicts.

  An inner dict without a sample size takes that of its outer one; the mark 'internal'
  passes to all inner ones.
  """
  figure = measured(entry)
  if figure is not None:
    yield path, figure
  elif isinstance(entry, dict):
    counts = {name for name, _ in wording.COUNTS}
    intervals = {f'{key}_{end}' for key in entry for end in ('low', 'high')}
    passed = {key: entry[key] for key in entry.keys() & (counts | {'internal'})}
    for key, value in entry.items():
      if key in intervals | SETTINGS or key in passed:
        continue
      inner = f'{path}.{key}' if path else str(key)
      bare = measured(entry, key) if is_number(value) else None
      if bare is not None:
        yield inner, bare
      elif isinstance(value, dict):
        own = value.keys() & counts
        inherited = {k: v for k, v in passed.items() if not own or k == 'internal'}
        yield from walk({**inherited, **value}, inner)


def row(
  name: Any, cells: Iterable[Any], internal: bool = False, note: str = ''
) -> dict:
  """A row of a table.

  Args:
    name: first cell.
    cells: the others.
    internal: true marks the row as computed from private scans.
    note: smaller text below the name.
  """
  return {'name': name, 'cells': list(cells), 'internal': internal, 'note': note}


def figure_row(name: str, figure: Measured, note: str = '') -> dict:
  """A row of a figure: its value with interval, and what it was computed from."""
  return row(name, (cell(figure), figure.counts), figure.internal, note)


def any_internal(entry: Mapping | Any) -> bool:
  """True when a figure anywhere inside was computed from private scans."""
  if not isinstance(entry, dict):
    return False
  return bool(entry.get('internal')) or any(map(any_internal, entry.values()))


def cell(figure: Measured | None) -> str:
  """Value and interval as a table cell, or nothing."""
  return '' if figure is None or figure.value is None else figure.text


def interval(figure: Measured) -> str:
  """The 95 % interval as a note, or the sample size where there is none."""
  if not is_number(figure.low) or not is_number(figure.high):
    return figure.counts
  return f'95 %: {number(figure.low)} to {number(figure.high)}'
