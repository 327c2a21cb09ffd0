"""What `doctor` found, as lines of text and as sections of a page."""

import numpy as np

from ldm_jax.report import doctor_costs, doctor_grid, figures, pictures, tables
from ldm_jax.report.wording import escape

COLUMNS, ROWS = 8, 4  # thumbnails shown of a cohort
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
  'notes': 'Notes of the layout',
}
GEOMETRY = (
  ('Shape (d, h, w)', 'shapes'),
  ('Spacing in mm (d, h, w)', 'spacings_mm'),
  ('Orientation of the files', 'orientations'),
)


def headlines(looks, internal):
  """What must not be missed: [{'text', 'cohorts', 'internal'}], each message once.

  Args:
    looks: cohort name -> inspection.Look.
    internal: names of the cohorts whose findings stay with the data owner.
  """
  found = {}
  for key in HEADLINES:
    for name, look in looks.items():
      for message in look.findings[key]:
        message += SEE_GRID if key == 'coarse' else ''
        found.setdefault(message, []).append(name)
  return [
    {'text': t, 'cohorts': names, 'internal': any(name in internal for name in names)}
    for t, names in found.items()
  ]


def headline_text(found, colour=False):
  """Headlines as lines for the terminal, '' if there is none."""
  lines = []
  for entry in found:
    mark = ' [INTERNAL]' if entry['internal'] else ''
    line = f'WARNING {", ".join(entry["cohorts"])}{mark}: {entry["text"]}'
    lines.append(f'\033[1;33m{line}\033[0m' if colour else line)
  return '\n'.join(lines)


def text(findings, max_messages=5, internal=False):
  """The findings of one cohort as lines for the terminal."""
  counts = findings['counts']
  mark = ' [INTERNAL]' if internal else ''
  lines = [
    f'Cohort {counts["name"]}: {counts["patients"]} patients, {counts["records"]} '
    f'scans ({counts["inspected"]} inspected, {counts["with_labels"]} with labels)'
    + mark
  ]
  for title, key in GEOMETRY:
    lines.append(f'  {title:26s} {_most(findings[key])}')
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
    lines.append(f'  {"patients by " + name:26s} {_most(groups, 8)}')
  for key, title in TITLES.items():
    messages = findings[key]
    if messages:
      lines.append(f'  {title}: {len(messages)}')
      lines += [f'    - {message}' for message in messages[:max_messages]]
      if len(messages) > max_messages:
        lines.append(f'    - and {len(messages) - max_messages} more')
  return '\n'.join(lines)


def sections(looks):
  """(key, title, content -> HTML) of the page."""
  return (
    ('summary', 'Summary', summary),
    ('grid', 'Grid', doctor_grid.section),
    *(
      (name, f'Cohort {name}', lambda content, name=name: cohort(content, name))
      for name in looks
    ),
    ('noise', 'Privacy outlook', doctor_costs.noise),
    ('cost', 'Cost', doctor_costs.cost),
  )


def summary(content):
  """Cards and what a reader must not miss."""
  looks, plan = content['looks'], content['plan']
  parts = []
  if any(name in content['internal'] for name in looks):
    parts.append(
      '<div class="notice warn"><p>Parts marked '
      f'{tables.INTERNAL} show private scans or were computed from them without noise. '
      'They are for the data owner: remove them before passing this page on.</p></div>'
    )
  for entry in content['headlines']:
    badge = tables.INTERNAL if entry['internal'] else ''
    names, message = ', '.join(entry['cohorts']), _capital(entry['text'])
    words = f'<b>{escape(names)}</b> {badge} {escape(message)}'
    parts.append(f'<div class="notice warn"><p>{words}</p></div>')
  if content['shared']:
    parts.append(
      '<div class="notice warn"><p><b>Patients in two cohorts</b> '
      f'{tables.INTERNAL} What is learned from the public ones carries no guarantee, '
      f'so these must be removed from one.</p>{_items(content["shared"])}</div>'
    )
  for fault in plan['faults']:
    parts.append(f'<div class="notice warn"><p>{escape(fault)}</p></div>')
  chosen = next(iter(doctor_costs.chosen(plan)), None)
  if chosen:
    tone = {'should learn': 'good', 'learns slowly': ''}.get(chosen['verdict'], 'warn')
    advice = (
      f' {doctor_costs.ADVICE}'
      if chosen['verdict'] == doctor_costs.MOSTLY_NOISE
      else ''
    )
    words = escape(doctor_costs.sentence(chosen) + advice)
    parts.append(f'<div class="notice {tone}"><p>{words}</p></div>')
  cards = ''
  for name, look in looks.items():
    counts = look.findings['counts']
    told = ('unreadable', 'duplicates', 'near_duplicates', 'odd', 'out_of_range')
    faults = sum(len(look.findings[key]) for key in (*HEADLINES, *told))
    badge = tables.INTERNAL if name in content['internal'] else ''
    cards += (
      f'<div class="card"><div class="name">{escape(name)} {badge}</div>'
      f'<div class="value">{counts["patients"]} patients</div><div class="note">'
      f'{counts["records"]} scans, {faults or "no"} '
      f'finding{"" if faults == 1 else "s"}</div></div>'
    )
  seconds = [entry['seconds'] or 0 for entry in plan['stages']]
  most = max(entry['memory_bytes'] for entry in plan['stages'])
  cards += (
    '<div class="card"><div class="name">Whole run, estimated</div>'
    f'<div class="value">{doctor_costs.duration(sum(seconds))}</div>'
    f'<div class="note">at most {doctor_costs.memory(most)} at once</div></div>'
  )
  return ''.join(parts) + f'<div class="cards">{cards}</div>'


def cohort(content, name):
  """Pictures, geometry, attributes, groups and faults of one cohort."""
  look, findings = content['looks'][name], content['looks'][name].findings
  badge = tables.INTERNAL if name in content['internal'] else ''
  counts = findings['counts']
  parts = [
    f'<p>{badge} {counts["patients"]} patients, {counts["records"]} scans, '
    f'{counts["inspected"]} inspected, {counts["with_labels"]} with labels.</p>',
    _sheet(look, badge),
  ]
  rows = [[title, escape(_most(findings[key], 6))] for title, key in GEOMETRY]
  for key in ('lowest', 'highest'):
    limits = findings['intensities'][key]
    shown = f'{limits[0]:g} to {limits[1]:g}' if limits else '–'
    rows.append([f'{key.capitalize()} intensity of a scan', shown])
  parts.append(
    doctor_costs.wrapped(tables.table(['Scans', 'found (number of scans)'], rows))
  )
  rows = [
    [escape(key), escape(found['summary']), found['missing'], found['out_of_range']]
    for key, found in findings['attributes'].items()
  ]
  if rows:
    head = ['Attribute', 'values', 'missing', 'out of range']
    parts.append(doctor_costs.wrapped(tables.table(head, rows)))
  rows = [
    [escape(key), escape(_most(groups, 12))]
    for key, groups in findings['groups'].items()
  ]
  if rows:
    parts.append(
      doctor_costs.wrapped(tables.table(['Patients by', 'group (patients)'], rows))
    )
  faults = [(key, title) for key, title in TITLES.items() if findings[key]]
  told = [e for e in content['headlines'] if name in e['cohorts']]
  if told:
    number = f'{len(told)} finding{"s" if len(told) > 1 else ""}'
    parts.append(
      f'<div class="notice warn"><p>{number} of this cohort in the <a href="#summary">'
      'summary</a>.</p></div>'
    )
  elif not faults:
    parts.append('<div class="notice good"><p>Nothing odd was found.</p></div>')
  for key, title in faults:
    messages = findings[key]
    if key == 'out_of_range':
      messages = list(map(without_value, messages))
    parts.append(f'<h3>{title}: {len(messages)}</h3>{_items(messages)}')
  return ''.join(parts)


def _capital(message):
  return message[:1].upper() + message[1:]


def without_value(message):
  """'P1: age = 143 lies outside [20, 90]' -> without the patient's value.

  Two such lines about one patient would be a pair of attributes on a page that is
  passed around; the terminal and doctor/<cohort>.json tell the value.
  """
  name, _, rest = message.rpartition(' = ')
  return f'{name} lies {rest.partition(" lies ")[2]}' if name else message


def _sheet(look, badge):
  if not look.thumbnails:
    return ''
  total = len(look.thumbnails)
  chosen = np.linspace(0, total - 1, min(total, COLUMNS * ROWS)).round().astype(int)
  pixels = [look.thumbnails[number] for number in chosen]
  columns = min(COLUMNS, len(pixels))
  rows = -(-len(pixels) // columns)
  blank = np.full_like(pixels[0], 255)
  pixels += [blank] * (rows * columns - len(pixels))
  sheet = np.stack(pixels).reshape(rows, columns, *blank.shape).swapaxes(0, 1)
  picture = figures.montage(sheet, columns, rows, limits=(0, 255))
  which = f'{len(chosen)} of {total} scans' if len(chosen) < total else 'all scans'
  caption = (
    f'<b>Middle slices</b> {badge} of {which}, each in its own contrast; anterior is '
    'at the top, the right side of the patient on the right'
  )
  return pictures.tiles(picture, caption, 'middle slices', columns)


def _most(counted, count=4):
  shown = ', '.join(f'{key or "–"} ({n})' for key, n in list(counted.items())[:count])
  more = len(counted) - count
  return (shown or '–') + (f', and {more} more' if more > 0 else '')


def _items(messages, count=12):
  shown = ''.join(f'<li>{escape(message)}</li>' for message in messages[:count])
  if len(messages) > count:
    rest = ''.join(f'<li>{escape(message)}</li>' for message in messages[count:500])
    shown += f'<details><summary>{len(messages) - count} more</summary>{rest}</details>'
  return f'<ul class="plain">{shown}</ul>'
