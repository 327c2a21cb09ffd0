"""What `doctor` found as a page, report/doctor.html, before anything is trained."""

import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_jax.data.inspection import grid_fit
from ldm_jax.report import doctor_text, figures, galleries, page, tables
from ldm_jax.report.wording import number

if TYPE_CHECKING:
  from ldm_jax.data.inspection.findings import Look

COLUMNS, ROWS = 8, 4  # thumbnails shown of a cohort
# Findings that the card of a cohort counts.
COUNTED = (
  *doctor_text.HEADLINES,
  *('unreadable', 'duplicates', 'near_duplicates', 'odd', 'out_of_range'),
)
TONES = {'should learn': 'good', 'learns slowly': ''}


def write(path: str | os.PathLike, content: Mapping[str, Any]) -> pathlib.Path:
  """Writes the page and returns its path.

  Args:
    path: file to write; its folder is created.
    content: dict
      title: headline. banner: sentence in red above everything, '' for none.
      looks: cohort name -> inspection.Look.
      internal: names of the cohorts whose findings stay with the data owner.
      headlines: of `doctor_text.headlines`.
      shared: a message for each patient in two cohorts.
      plan: doctor/plan.json. grid: doctor/grid.json, None without public scans.
      examples: of `grid_proposal.examples`.
  """
  return page.write(path, html(content))


def html(content: Mapping[str, Any]) -> str:
  """The page as text: content as in `write` -> HTML document."""
  looks, internal, plan = content['looks'], content['internal'], content['plan']
  headlines = content['headlines']
  cohorts = [
    _cohort(name, look, name in internal, headlines) for name, look in looks.items()
  ]
  return page.render(
    'doctor.html',
    title=content['title'],
    banner=content['banner'],
    sections={
      'summary': 'Summary',
      'grid': 'Grid',
      **{name: f'Cohort {name}' for name in looks},
      'noise': 'Privacy outlook',
      'cost': 'Cost',
    },
    any_internal=any(name in internal for name in looks),
    headlines=headlines,
    shared=content['shared'],
    faults=plan['faults'],
    outlook=_outlook(plan),
    cards=[*(_card(cohort) for cohort in cohorts), _whole_run(plan)],
    grid=_grid(content['grid'], content['examples']),
    cohorts=cohorts,
    noise=_noise(plan),
    cost=[
      tables.row(
        entry['stage'],
        (
          doctor_text.duration(entry['seconds']),
          doctor_text.memory(entry['memory_bytes']),
          f'{entry["parameters"]:,}' if entry['parameters'] else '–',
          entry['note'],
        ),
        bool(entry.get('internal')),
      )
      for entry in plan['stages']
    ],
  )


def _outlook(plan):
  """What the noise of the configured run leaves, and the tone of the notice."""
  rows = doctor_text.outlook(plan)
  if not rows:
    return None
  text, verdict = doctor_text.noise_sentence(rows[0]), rows[0]['verdict']
  text += f' {doctor_text.ADVICE}' if verdict == doctor_text.MOSTLY_NOISE else ''
  return {'text': text, 'tone': TONES.get(verdict, 'warn')}


def _card(cohort):
  faults = cohort['num_counted']
  return {
    'name': cohort['name'],
    'value': f'{cohort["counts"]["patients"]} patients',
    'note': f'{cohort["counts"]["records"]} scans, {faults or "no"} finding'
    + ('' if faults == 1 else 's'),
    'internal': cohort['internal'],
  }


def _whole_run(plan):
  seconds = sum(entry['seconds'] or 0 for entry in plan['stages'])
  memory = max((entry['memory_bytes'] for entry in plan['stages']), default=0)
  return {
    'name': 'Whole run, estimated',
    'value': doctor_text.duration(seconds),
    'note': f'at most {doctor_text.memory(memory)} at once',
    'internal': False,
  }


def _cohort(name: str, look: 'Look', internal: bool, headlines: list[dict]) -> dict:
  """Pictures, geometry, attributes, groups and faults of one cohort."""
  findings = look.findings
  scans = [
    tables.row(title, [doctor_text.most(findings[key], 6)])
    for title, key in doctor_text.GEOMETRY.items()
  ]
  for key in ('lowest', 'highest'):
    limits = findings['intensities'][key]
    shown = f'{limits[0]:g} to {limits[1]:g}' if limits else '–'
    scans.append(tables.row(f'{key.capitalize()} intensity of a scan', [shown]))
  faults = {key: findings[key] for key in doctor_text.TITLES if findings[key]}
  if 'out_of_range' in faults:
    faults['out_of_range'] = [
      doctor_text.without_value(message) for message in faults['out_of_range']
    ]
  return {
    'name': name,
    'internal': internal,
    'counts': findings['counts'],
    'sheet': _sheet(look, internal),
    'scans': scans,
    'attributes': [
      tables.row(key, (found['summary'], found['missing'], found['out_of_range']))
      for key, found in findings['attributes'].items()
    ],
    'groups': [
      tables.row(key, [doctor_text.most(groups, 12)])
      for key, groups in findings['groups'].items()
    ],
    'num_headlines': sum(name in entry['cohorts'] for entry in headlines),
    'num_counted': sum(len(findings[key]) for key in COUNTED),
    'faults': [(doctor_text.TITLES[key], found) for key, found in faults.items()],
  }


def _sheet(look, internal):
  """Thumbnails of a cohort's scans in one picture, None without any."""
  total = len(look.thumbnails)
  if not total:
    return None
  chosen = np.linspace(0, total - 1, min(total, COLUMNS * ROWS)).round().astype(int)
  pixels = [look.thumbnails[i] for i in chosen]
  columns = min(COLUMNS, len(pixels))
  rows = -(-len(pixels) // columns)
  blank = np.full_like(pixels[0], 255)
  pixels += [blank] * (rows * columns - len(pixels))
  sheet = np.stack(pixels).reshape(rows, columns, *blank.shape).swapaxes(0, 1)
  picture = figures.montage(sheet, columns, rows, limits=(0, 255))
  which = f'{len(chosen)} of {total} scans' if len(chosen) < total else 'all scans'
  note = (
    f'of {which}, each in its own contrast; anterior is at the top, the right side of '
    'the patient on the right'
  )
  return galleries.tiles(
    picture, columns, 'Middle slices', note, 'middle slices', internal
  )


def _grid(grid, examples):
  """The comparison as a table, the command, and slices before and after."""
  if grid is None:
    return None
  rows = []
  for key in doctor_text.compared(grid):
    found = grid[key]
    cells = (
      grid_fit.in_words(found['shape'], found['spacing_mm']),
      f'{grid_fit.times(found["kept"])} voxels',
      f'{found["inside"]:.0%}',
      f'{found["poor"]} of {grid["scans"]}',
      doctor_text.duration(found['seconds']),
    )
    rows.append(tables.row(doctor_text.GRIDS[key], cells))
  return {
    'sentence': doctor_text.grid_sentence(grid),
    'tone': 'good' if grid['same'] and not grid['fault'] else 'warn',
    'rows': rows,
    'command': grid['command'],
    'examples': [_example(example) for example in examples],
  }


def _example(example):
  """A column a grid; middle slice, row and column below each other."""
  panels = example['panels']
  volumes = [planes for *_, planes in panels]
  picture = figures.montage(volumes, len(panels), len(volumes[0]), limits=(0, 255))
  return {
    'title': example['id'],
    'image': galleries.image(
      picture, f'{example["id"]} before and after preprocessing'
    ),
    'panels': [
      (name, grid_fit.times(shape), grid_fit.times(spacing))
      for name, shape, spacing, _ in panels
    ],
  }


def _noise(plan):
  """The table of noise over signal, None where no private training is planned."""
  if not plan['noise']:
    return None
  rows = [
    tables.row(
      row['method'],
      (
        number(row['epsilon']),
        f'{row["patients"]:,}',
        f'{row["batch_size"]:,}',
        number(row['noise_multiplier']),
        f'{number(row["per_step"])} ×',
        f'{number(row["per_run"])} ×',
        row['verdict'],
      ),
      note=f'{row["parameters"]:,} parameters',
    )
    for row in plan['noise']
  ]
  return {'delta': plan['delta'], 'steps': plan['steps'], 'rows': rows}
