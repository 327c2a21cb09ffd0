"""Values of evidence: control, quality, memorisation, reconstruction, training."""

from collections.abc import Iterable, Mapping

from ldm_jax.report import galleries, plots, tables
from ldm_jax.report.wording import is_number, measured, number, percent

HALVES = 'two halves of the real cohort, hence half as many volumes on either side'
NAMES = {
  'frechet': ('Fréchet distance', 'real to synthetic; lower is better'),
  'kid': ('Kernel distance (KID)', 'lower is better; can fall just below 0'),
  'ms_ssim.real': ('MS-SSIM, real pairs', 'how alike two real scans are'),
  'ms_ssim.synthetic': (
    'MS-SSIM, synthetic pairs',
    'near the real value: as diverse; above it: samples repeat each other',
  ),
  'baseline_real_real': (
    'Fréchet distance, real to real',
    'what a perfect generator would score',
  ),
  'baseline_real_real.frechet': ('Fréchet distance, real to real', HALVES),
  'baseline_real_real.kid': ('KID, real to real', HALVES),
}
OTHER_SECTIONS = (
  'control',
  'control_real',
  'memorisation',
  'reconstruction',
  'features',
  'two_sample',
  'label_maps',
  'mask_control',
  'within_patient',
  'utility',
  'groups',
  'causal',
)
TOLD_APART = (
  'area under the ROC curve of a network trained to tell real from synthetic volumes, '
  'on volumes it was not trained on: 0.5 if it cannot tell, 1 if it always can'
)
LABEL_FIGURES = {
  'single_component': 'share of maps in one piece',
  'closed_ring': 'share of slices in which it is closed',
  'agreement': 'Dice with what the measuring network sees in the scan',
}
LIKENESS = (
  'between two volumes of a patient; synthetic above real: what was to change did not, '
  'below: they are not of one patient'
)
EJECTION = {
  'synthetic': 'mean of the synthetic patients, in %',
  'real': 'mean of the real patients, in %',
  'distance': 'Wasserstein distance of synthetic from real patients, in % of volume',
  'real_halves': 'the same of two halves of the real patients',
  'inside': 'share of synthetic patients within the central 95 % of the real ones',
}
ASKED = 'Dice of the requested map with what the measuring network sees'
UNITS = {'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'ms_ssim': 'MS-SSIM'}


def agreements(entries: Mapping) -> dict | None:
  """Table {head, rows} of {attribute: result of evaluation.control}.

  Columns without any value are left out; None without any row.
  """
  heads = ('Pearson r (95 %)', 'MAE (95 %)', 'Bias', 'Accuracy (95 %)', 'Computed from')
  rows = []
  for name, entry in entries.items():
    if not isinstance(entry, dict):
      continue
    found = [measured(entry, key) for key in ('pearson_r', 'mae', 'bias')]
    accuracy = {**entry, 'value': entry.get('accuracy')}
    found.append(measured(accuracy) if 'accuracy' in entry else None)
    counts = next((figure.counts for figure in found if figure), '')
    cells = [*map(tables.cell, found), counts]
    rows.append(tables.row(name, cells, bool(entry.get('internal'))))
  if not rows:
    return None
  filled = [i for i in range(len(heads)) if any(row['cells'][i] for row in rows)]
  return {
    'head': ['Attribute', *(heads[i] for i in filled)],
    'rows': [row | {'cells': [row['cells'][i] for i in filled]} for row in rows],
  }


def quality(metrics: Mapping) -> list[dict]:
  """Rows of distances, diversity, baselines and whatever else metrics.json holds."""
  rest = {k: v for k, v in metrics.items() if k not in OTHER_SECTIONS}
  rows = []
  for path, figure in tables.walk(rest):
    name, note = NAMES.get(path, (_title(path), ''))
    if path == 'frechet':
      note = _with_reason(note, metrics[path])
    rows.append(tables.figure_row(name, figure, note))
  return rows + _told_apart(metrics.get('two_sample') or {})


def _told_apart(entry):
  """Rows of the classifier two-sample test, and of the same between real halves."""
  halves = entry.get('real_halves') or {}
  # Between halves nothing is synthetic.
  sizes = ('num_real', 'num_synthetic')
  per_half = {'n_half': halves.get('num_real')}
  halves = {k: v for k, v in halves.items() if k not in sizes} | per_half
  rows = [
    ('Real or synthetic? AUC', entry, TOLD_APART),
    ('Real or real? AUC', halves, f'the same test between {HALVES}'),
  ]
  return [
    tables.figure_row(name, measured(found, 'auc'), _with_reason(note, found))
    for name, found, note in rows
    if 'auc' in found
  ]


def _with_reason(note, entry):
  """The note, and why the figure says nothing where it does."""
  reason = entry.get('says_nothing') if isinstance(entry, dict) else None
  return f'{note}. Says nothing here: {reason}' if reason else note


def label_maps(entry: Mapping, asked: Mapping) -> dict | None:
  """Table {head, rows} of the shape of drawn and real label maps; None without any.

  Args:
    entry: `label_maps` of metrics.json.
    asked: its `mask_control`.
  """
  rows = []
  for name, part in asked.items():
    figure = measured(part)
    if figure:
      cells = [tables.cell(figure), figure.counts]
      rows.append(tables.row(f'{name}: {ASKED}', cells, figure.internal))
  for kind, text in LABEL_FIGURES.items():
    parts = {key: entry.get(key, {}).get(kind, {}) for key in ('synthetic', 'real')}
    for name in parts['synthetic']:
      drawn, real = (measured(part.get(name)) for part in parts.values())
      counts = drawn.counts if drawn else ''
      rows.append(tables.row(f'{name}: {text}', [tables.cell(drawn), counts]))
      if real:
        cells = [tables.cell(real), real.counts]
        rows.append(tables.row(f'{name}: {text}, real', cells, real.internal))
  head = ['Label maps', 'Value (95 % interval)', 'Computed from']
  return {'head': head, 'rows': rows} if rows else None


def within_patient(entry: Mapping) -> dict | None:
  """Table {head, rows} of what the volumes of a patient show; None without any.

  Args:
    entry: `within_patient` of metrics.json.
  """
  rows = []
  for side, found in entry.get('likeness', {}).items():
    figure = measured(found)
    if figure:
      rows.append(tables.figure_row(f'SSIM, {side}', figure, LIKENESS))
  for name, sides in entry.get('same', {}).items():
    for side, found in sides.items():
      figure = measured(found, 'pearson_r')
      if figure:
        apart = number(found.get('mae'))
        note = f'correlation between two volumes of a patient; {apart} apart on average'
        rows.append(tables.figure_row(f'{name}, {side}', figure, note))
  for name, parts in entry.get('ejection', {}).items():
    for key, text in EJECTION.items():
      figure = measured(parts.get(key))
      if figure:
        ends = parts[key].get('quantiles')
        if ends:
          text += f'; 95 % of patients: {number(ends[0])} to {number(ends[-1])}'
        rows.append(tables.figure_row(f'{name}, {key.replace("_", " ")}', figure, text))
  head = ['Volumes of one patient', 'Value (95 % interval)', 'Computed from']
  return {'head': head, 'rows': rows} if rows else None


def utility(entry: Mapping) -> dict | None:
  """Table {head, rows, labels_from, steps} of segmenters by what they learned from."""
  arms = {k: v for k, v in entry.items() if isinstance(v, dict) and 'dice' in v}
  if not arms:
    return None
  attributes = sorted({name for arm in arms.values() for name in arm.get('mae', {})})
  rows = []
  for name, arm in arms.items():
    share = entry.get('share_of_real', {}).get(name, {})
    found = [measured(arm[key]) for key in ('dice', 'hd95_mm')]
    found.append(measured(share.get('dice')))
    found += [measured(arm.get('mae', {}).get(each)) for each in attributes]
    cells = [*map(tables.cell, found), arm.get('scans', '')]
    note = found[0].counts if found[0] else ''
    title = name.replace('_', ', ').replace('both', 'real + synthetic')
    rows.append(tables.row(title, cells, bool(arm['dice'].get('internal')), note))
  head = ['Trained on', 'Dice (95 %)', 'HD95 in mm (95 %)', 'Dice / real (95 %)']
  head += [f'{each}, mean error (95 %)' for each in attributes]
  told = {key: entry.get(key) for key in ('labels_from', 'steps')}
  return {'head': [*head, 'Scans'], 'rows': rows, **told}


def by_group(distances: Mapping, dice: Mapping) -> dict | None:
  """Table {head, rows} of distances and Dice by group of patients; None without any.

  Args:
    distances: entry `groups` of metrics.json.
    dice: entry `utility.groups`.
  """
  names = list(dict.fromkeys([*distances, *dice]))
  arms = list(dict.fromkeys(a for n in dice for g in dice[n].values() for a in g))
  rows = []
  for name in names:
    parts = distances.get(name, {}), dice.get(name, {})
    for group in dict.fromkeys([*parts[0], *parts[1]]):
      near, use = (part.get(group, {}) for part in parts)
      found = [measured(near.get('kid')), measured(near.get('frechet'))]
      found += [measured(use.get(arm)) for arm in arms]
      known = [figure for figure in found if figure]
      internal = any(figure.internal for figure in known)
      note = known[0].counts if known else ''
      cells = list(map(tables.cell, found))
      rows.append(tables.row(f'{name}: {group}', cells, internal, note))
  head = ['Group', 'Kernel distance (95 %)', 'Fréchet distance (95 %)']
  head += [f'Dice, {arm.replace("_", ", ")} (95 %)' for arm in arms]
  return {'head': head, 'rows': rows} if rows else None


def memorisation(entry: Mapping) -> list[dict]:
  """Nearest neighbours, were training patients copied? One dict for each space."""
  spaces = {'': entry} if 'auc' in entry else entry
  return [
    _memorised(space, {'internal': entry.get('internal'), **found})
    for space, found in spaces.items()
    if isinstance(found, dict) and 'auc' in found
  ]


def reconstruction(entry: Mapping) -> list[dict]:
  """Rows of what the autoencoder alone loses."""
  rows = []
  for path, figure in tables.walk(entry):
    words = [UNITS.get(part, part.replace('_', ' ')) for part in path.split('.')]
    rows.append(tables.figure_row(', '.join(reversed(words)), figure))
  return rows


def training(events: Iterable[Mapping]) -> list[dict]:
  """Loss curves of every stage that may show them."""
  return galleries.panels(plots.training_curves(events), 'training curve')


def _memorised(space: str, found: Mapping) -> dict:
  """{name, rows, flagged} of one space."""
  auc, near = measured(found, 'auc'), measured(found, 'fraction')
  internal = bool(found.get('internal'))
  sizes = {'n_train': 'training', 'n_held_out': 'held-out', 'n_synthetic': 'samples'}
  counts = ', '.join(
    f'{number(found[key])} {word}'
    for key, word in sizes.items()
    if is_number(found.get(key))
  )
  cells = {'AUC, training against held-out': (tables.cell(auc), counts)}
  if near:
    text = f'{percent(near.value)} ({percent(near.low)} to {percent(near.high)})'
    if 'expected' in found:
      text += f' (expected {percent(found["expected"])})'
    cells['Samples suspiciously near a training scan'] = (text, counts)
  for key, value in (found.get('distances') or {}).items():
    words = key.replace('_', ' to ', 1) if key.startswith('synth') else key
    words = words.replace('held_out', 'held-out').replace('_', ' to ')
    cells[f'Median distance, {words}'] = (number(value), '')
  flagged = None
  if is_number(found.get('num_flagged')) and found['num_flagged']:
    worst = (found.get('flagged') or [{}])[0]
    flagged = {
      'num': number(found['num_flagged']),
      'nearest': worst.get('synthetic', '–'),
      'ratio': percent(worst.get('ratio')),
    }
  space = {'features': 'feature', 'voxels': 'voxel'}.get(space, space)
  return {
    'name': space.replace('_', ' '),
    'internal': internal,
    'rows': [tables.row(name, values, internal) for name, values in cells.items()],
    'flagged': flagged,
  }


def _title(path: str) -> str:
  words = path.replace('_', ' ').replace('.', ', ')
  return words[:1].upper() + words[1:]
