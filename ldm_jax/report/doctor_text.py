"""What `doctor` found, in words and as lines for the terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ldm_jax.data.inspection import grid_fit
from ldm_jax.report.wording import number

if TYPE_CHECKING:
  from ldm_jax.data.inspection.findings import Look

# Findings that stand above all others: the run would learn from the wrong data.
HEADLINES = ('unmatched', 'bare', 'coarse')
SEE_GRID = '. Under Grid stands a command with a grid that fits the public scans.'
TITLES = {
  'unreadable': 'Cannot be read',
  'duplicates': 'The same file twice',
  'near_duplicates': 'The same picture in other bytes',
  'odd': 'Unlike the rest',
  'out_of_range': 'Attributes out of their range',
  'small_groups': 'Groups of few patients',
  'cut_off': 'Would be cut off by preprocess.shape',
  'remarks': 'Decided while reading',
  'unlisted_labels': 'Labels of no class',
  'notes': 'Notes of the layout',
}
GEOMETRY = {
  'Shape (d, h, w)': 'shapes',
  'Spacing in mm (d, h, w)': 'spacings_mm',
  'Orientation of the files': 'orientations',
}
GRIDS = {'now': 'This config', 'proposed': 'Proposed'}
MOSTLY_NOISE = 'mostly noise'
ADVICE = (
  'Train fewer parameters (adapt.method), bring more patients, raise '
  'adapt.privacy.batch_size or allow a larger epsilon.'
)


def headlines(looks: Mapping[str, 'Look'], internal: Iterable[str]) -> list[dict]:
  """What must not be missed: [{'text', 'cohorts', 'internal'}], each message once.

  Args:
    looks: cohort name -> inspection.Look.
    internal: names of the cohorts whose findings stay with the data owner.
  """
  found: dict[str, list[str]] = {}
  for key in HEADLINES:
    for name, look in looks.items():
      for message in look.findings[key]:
        message += SEE_GRID if key == 'coarse' else ''
        found.setdefault(message, []).append(name)
  return [
    {'text': t, 'cohorts': names, 'internal': any(name in internal for name in names)}
    for t, names in found.items()
  ]


def headline_lines(found: Iterable[Mapping], colour: bool = False) -> str:
  """Headlines as lines, '' if there is none."""
  lines = []
  for entry in found:
    mark = ' [INTERNAL]' if entry['internal'] else ''
    line = f'WARNING {", ".join(entry["cohorts"])}{mark}: {entry["text"]}'
    lines.append(f'\033[1;33m{line}\033[0m' if colour else line)
  return '\n'.join(lines)


def cohort_lines(
  findings: Mapping[str, Any], max_messages: int = 5, internal: bool = False
) -> str:
  """The findings of one cohort as lines.

  Args:
    findings: of `inspection.Look`.
    max_messages: shown of each kind.
    internal: kinds of findings alone, without counts, since the terminal of a cluster
      is kept in a log.
  """
  counts = findings['counts']
  if internal:
    kinds = ', '.join(title for key, title in TITLES.items() if findings[key])
    lines = [f'Cohort {counts["name"]}: {counts["patients"]} patients [INTERNAL]']
    return '\n'.join([*lines, *([f'  {kinds}'] if kinds else [])])
  lines = [
    f'Cohort {counts["name"]}: {counts["patients"]} patients, {counts["records"]} '
    f'scans ({counts["inspected"]} inspected, {counts["with_labels"]} with labels)'
  ]
  for title, key in GEOMETRY.items():
    lines.append(f'  {title:26s} {most(findings[key])}')
  for title in ('lowest', 'highest'):
    limits = findings['intensities'][title]
    if limits:
      lines.append(f'  {title + " intensity":26s} {limits[0]:g} .. {limits[1]:g}')
  for name, found in findings['attributes'].items():
    lines.append(
      f'  {name:26s} {found["summary"]}, missing {found["missing"]}, '
      f'out of range {found["out_of_range"]}'
    )
  for name, groups in findings['groups'].items():
    lines.append(f'  {"patients by " + name:26s} {most(groups, 8)}')
  for key, title in TITLES.items():
    messages = findings[key]
    if messages:
      lines.append(f'  {title}: {len(messages)}')
      lines += [f'    - {message}' for message in messages[:max_messages]]
      if len(messages) > max_messages:
        lines.append(f'    - and {len(messages) - max_messages} more')
  return '\n'.join(lines)


def plan_lines(plan: Mapping[str, Any], shared: Sequence[str]) -> str:
  """Patients in two cohorts, cost and noise as lines.

  Args:
    plan: content of doctor/plan.json.
    shared: a message for each patient in two cohorts.
  """
  lines = []
  if shared:
    lines.append(f'IN TWO COHORTS: {len(shared)}')
    lines += [f'  - {message}' for message in shared[:5]]
  lines.append('Cost (estimated: right within a factor of about 3)')
  for entry in plan['stages']:
    size = f'{entry["parameters"]:,} parameters' if entry['parameters'] else ''
    lines.append(
      f'  {entry["stage"]:12s} {duration(entry["seconds"]):>10s} '
      f'{memory(entry["memory_bytes"]):>8s}  {size:22s} {entry["note"]}'
    )
  lines += [f'  refused: {fault}' for fault in plan['faults']]
  if plan['noise']:
    lines.append('Privacy (noise over signal of one step, at best)')
    rows = outlook(plan)
    lines += [f'  {noise_sentence(row)}' for row in rows]
    lines += [f'  {ADVICE}'] if rows[0]['verdict'] == MOSTLY_NOISE else []
  return '\n'.join(lines)


def grid_lines(grid: Mapping[str, Any] | None) -> str:
  """The comparison of grids and the ready command as lines.

  Args:
    grid: content of doctor/grid.json, None without public scans.
  """
  if grid is None:
    return 'Grid: there are no public scans, so none is proposed.'
  lines = [f'Grid for the {grid["scans"]} public scans that were read']
  for key in compared(grid):
    row = grid[key]
    lines.append(
      f'  {GRIDS[key]:12s} {grid_fit.in_words(row["shape"], row["spacing_mm"])}: '
      f'a scan keeps {grid_fit.times(row["kept"])} voxels '
      f'and {row["inside"]:.0%} of its extent'
    )
  lines.append(f'  {grid_sentence(grid)}')
  if grid['command']:
    lines += ['Ready command (shape, spacing and batches for these scans)']
    lines += [f'  {line}' for line in grid['command'].splitlines()]
  return '\n'.join(lines)


def compared(grid: Mapping[str, Any]) -> tuple[str, ...]:
  """Keys of the grids that are shown: one where the proposed one is the same."""
  return ('now',) if grid['same'] else ('now', 'proposed')


def grid_sentence(grid: Mapping[str, Any]) -> str:
  """The result of the comparison of grids, in words."""
  if grid['fault']:
    return f'A run on the proposed grid would be refused: {grid["fault"]}'
  if grid['same']:
    return 'The grid of this config fits the scans; the command below keeps it.'
  if grid['now']['poor']:
    return (
      f'{grid["now"]["poor"]} of {grid["scans"]} scans keep few voxels on the grid of '
      f'this config, {grid["proposed"]["poor"]} on the proposed one.'
    )
  if grid['now']['inside'] < grid['proposed']['inside']:
    return (
      f'The box of this config covers {grid["now"]["inside"]:.0%} of the extent of a '
      f'scan, the proposed one {grid["proposed"]["inside"]:.0%}.'
    )
  return 'The proposed grid is finer and takes as many voxels.'


def outlook(plan: Mapping[str, Any]) -> list[dict]:
  """Rows of noise: what the config asks for, then the strictest budget, same cohort."""
  fewest = min((row['patients'] for row in plan['noise']), default=0)
  strictest = min((row['epsilon'] for row in plan['noise']), default=0)
  rows = [row for row in plan['noise'] if row['patients'] == fewest]
  rows = [r for r in rows if r['configured'] or r['epsilon'] == strictest]
  return sorted(rows, key=lambda row: not row['configured'])


def noise_sentence(row: Mapping[str, Any]) -> str:
  """One row of the table of noise, in words."""
  return (
    f'At N = {row["patients"]} and epsilon = {row["epsilon"]:g} with {row["method"]} '
    f'({row["parameters"]:,} parameters) expect noise {number(row["per_step"])} x '
    f'signal: {row["verdict"]}.'
  )


def most(counted: Mapping[str, int], count: int = 4) -> str:
  """'F (12), M (9), and 3 more' of {'F': 12, 'M': 9, ...}."""
  shown = ', '.join(f'{key or "–"} ({n})' for key, n in list(counted.items())[:count])
  more = len(counted) - count
  return (shown or '–') + (f', and {more} more' if more > 0 else '')


def without_value(message: str) -> str:
  """'P1: age = 143 lies outside [20, 90]' -> without the patient's value.

  Two such lines about one patient would be a pair of attributes on a page that is
  passed around; store/doctor/<cohort>.json tells the value.
  """
  name, _, rest = message.rpartition(' = ')
  return f'{name} lies {rest.partition(" lies ")[2]}' if name else message


def duration(seconds: float | None) -> str:
  """Seconds in the largest unit that leaves a number above one."""
  if seconds is None or not math.isfinite(seconds):
    return '–'
  for limit, unit, size in ((90, 's', 1), (5400, 'min', 60), (172800, 'h', 3600)):
    if seconds < limit:
      return f'{max(seconds / size, 1 if unit == "s" else 0):.2g} {unit}'
  return f'{seconds / 86400:.3g} days'


def memory(num_bytes: float) -> str:
  """Bytes as MiB or GiB."""
  mib = num_bytes / 2**20
  return f'{mib / 1024:.1f} GiB' if mib >= 1000 else f'{max(mib, 1):.0f} MiB'
