"""What a run will cost and what its noise will leave: as lines and as tables."""

import math

from ldm_jax.report import tables
from ldm_jax.report.wording import escape, number

MOSTLY_NOISE = 'mostly noise'
ADVICE = (
  'Train fewer parameters (adapt.method), bring more patients, raise '
  'adapt.privacy.batch_size or allow a larger epsilon.'
)


def text(plan, shared):
  """Shared patients, cost and noise as lines for the terminal."""
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
    rows = chosen(plan)
    lines += [f'  {sentence(row)}' for row in rows]
    lines += [f'  {ADVICE}'] if rows[0]['verdict'] == MOSTLY_NOISE else []
  return '\n'.join(lines)


def sentence(row):
  """One row of the table of noise, in words."""
  return (
    f'At N = {row["patients"]} and epsilon = {row["epsilon"]:g} with {row["method"]} '
    f'({row["parameters"]:,} parameters) expect noise {number(row["per_step"])} x '
    f'signal: {row["verdict"]}.'
  )


def noise(content):
  """The table of noise over signal."""
  plan = content['plan']
  if not plan['noise']:
    return (
      '<p class="muted">No private training is planned: data.private is empty, '
      'adapt.privacy is None, or its budget was refused above.</p>'
    )
  rows = [
    [
      f'{row["method"]} <small>{row["parameters"]:,} parameters</small>',
      number(row['epsilon']),
      f'{row["patients"]:,}',
      f'{row["batch_size"]:,}',
      number(row['noise_multiplier']),
      f'{number(row["per_step"])} ×',
      f'{number(row["per_run"])} ×',
      row['verdict'],
    ]
    for row in plan['noise']
  ]
  head = ['Method', 'ε', 'patients', 'a step', 'σ', 'noise / signal', 'over all steps']
  return (
    '<p>Norm of the noise of one step over the largest norm its signal can have, '
    f'σ√d / B, for d trained parameters and B patients a step; δ = '
    f'{number(plan["delta"])}, {plan["steps"]} steps. Over a run that keeps its '
    'direction it shrinks by the root of the steps. The signal is rarely at its '
    'largest, so these are lower bounds.</p>'
    + wrapped(tables.table([*head, 'outlook'], rows))
  )


def cost(content):
  """The table of estimated time and memory."""
  rows = [
    [
      entry['stage'] + (f' {tables.INTERNAL}' if entry.get('internal') else ''),
      duration(entry['seconds']),
      memory(entry['memory_bytes']),
      f'{entry["parameters"]:,}' if entry['parameters'] else '–',
      escape(entry['note']),
    ]
    for entry in content['plan']['stages']
  ]
  return (
    '<p>Estimates, right within a factor of about 3: operations of the traced networks '
    'over the speed of a convolution that was measured on this machine; parameters, '
    'their gradients, moments and average, and what is kept for the gradient. '
    'Compilation is not in it.</p>'
    + wrapped(tables.table(['Stage', 'time', 'memory', 'parameters', 'what'], rows))
  )


def duration(seconds):
  """Seconds in the largest unit that leaves a number above one."""
  if seconds is None or not math.isfinite(seconds):
    return '–'
  for limit, unit, size in ((90, 's', 1), (5400, 'min', 60), (172800, 'h', 3600)):
    if seconds < limit:
      return f'{max(seconds / size, 1 if unit == "s" else 0):.2g} {unit}'
  return f'{seconds / 86400:.3g} days'


def memory(num_bytes):
  """Bytes as MiB or GiB."""
  mib = num_bytes / 2**20
  return f'{mib / 1024:.1f} GiB' if mib >= 1000 else f'{max(mib, 1):.0f} MiB'


def chosen(plan):
  """What the config asks for, then the strictest budget on the same cohort."""
  fewest = min((row['patients'] for row in plan['noise']), default=0)
  strictest = min((row['epsilon'] for row in plan['noise']), default=0)
  rows = [row for row in plan['noise'] if row['patients'] == fewest]
  rows = [r for r in rows if r['configured'] or r['epsilon'] == strictest]
  return sorted(rows, key=lambda row: not row['configured'])


def wrapped(table):
  """Cells of text may break; the page stays as wide as it is."""
  return table.replace('<td class="num"', '<td')
