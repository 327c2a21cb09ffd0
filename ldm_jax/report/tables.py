"""Tables of the report: nested figures of metrics.json -> rows -> HTML."""

from ldm_jax.report import wording
from ldm_jax.report.wording import escape, is_number, measured, number

INTERNAL = (
  '<span class="badge" title="computed from private scans; not covered by the '
  'privacy guarantee">internal</span>'
)
SETTINGS = {'scales', 'num_features', 'num_splits', 'seed', 'num_missing'}


def walk(entry, path=''):
  """Yields (dotted path, Measured) for every figure in nested dicts.

  An inner dict that names no sample size has its outer one's, and so has the mark
  'internal'.
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
      if is_number(value):
        yield inner, measured(entry, key)
      elif isinstance(value, dict):
        own = value.keys() & counts
        inherited = {k: v for k, v in passed.items() if not own or k == 'internal'}
        yield from walk({**inherited, **value}, inner)


def table(head, rows):
  """A table that turns into a stack of lines on a telephone; cells are HTML."""
  columns = ''.join(f'<th scope="col">{escape(name)}</th>' for name in head)
  body = ''
  for row in rows:
    cells = [f'<td>{row[0]}</td>']
    cells += [
      f'<td class="num" data-name="{escape(name)}">{cell}</td>'
      for name, cell in zip(head[1:], row[1:], strict=True)
    ]
    body += f'<tr>{"".join(cells)}</tr>'
  return (
    f'<table class="stack"><thead><tr>{columns}</tr></thead>'
    f'<tbody>{body}</tbody></table>'
  )


def any_internal(entry):
  """True when a figure anywhere inside was computed from private scans."""
  if not isinstance(entry, dict):
    return False
  return bool(entry.get('internal')) or any(map(any_internal, entry.values()))


def badge(figure):
  """The mark of a figure computed from private scans, or nothing."""
  return INTERNAL if figure.internal else ''


def cell(figure):
  """Value and interval as a table cell, or nothing."""
  return '' if figure is None or figure.value is None else escape(figure.text)


def interval(figure):
  """The 95 % interval as a note, or the sample size where there is none."""
  if not is_number(figure.low) or not is_number(figure.high):
    return figure.counts
  return f'95 %: {number(figure.low)} to {number(figure.high)}'
