"""Report sections of evidence: control, quality, memorisation, reconstruction."""

from ldm_jax.report import figures, pictures, tables
from ldm_jax.report.wording import escape, is_number, measured, number, percent

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
  'baseline_real_real.frechet': (
    'Fréchet distance, real to real',
    'two halves of the real cohort, hence half as many volumes on either side',
  ),
  'baseline_real_real.kid': (
    'KID, real to real',
    'two halves of the real cohort, hence half as many volumes on either side',
  ),
}
OTHER_SECTIONS = (
  'control',
  'control_real',
  'memorisation',
  'reconstruction',
  'features',
)


def control(content):
  """Requested against measured values: tables, scatter plots, sweeps."""
  metrics, parts = content.get('metrics') or {}, []
  rows = _agreements(metrics.get('control') or {})
  if rows:
    parts.append(
      '<p>Every sample was measured by a network trained on public scans. r: '
      'correlation of measured with requested values; MAE: mean absolute error, in the '
      'attribute’s unit.</p>' + rows
    )
  rows = _agreements(metrics.get('control_real') or {})
  if rows:
    parts.append(
      '<h3>The measurement itself</h3><p>The same network on real scans, against their '
      'recorded attributes: what a generator that obeys perfectly would score.</p>'
      + rows
    )
  panels = figures.scatter(content.get('control') or {})
  if panels:
    parts.append(
      '<h3>Measured against requested</h3><p class="muted">The dashed line is perfect '
      'control.</p>' + pictures.plots(panels, 'measured against requested')
    )
  parts.append(pictures.sweeps(content))
  if not any(parts):
    return '<p class="muted">Controllability was not measured in this run.</p>'
  return ''.join(parts)


def quality(content):
  """Distances, diversity, baselines and whatever else metrics.json holds."""
  metrics = content.get('metrics') or {}
  rows = []
  for path, figure in tables.walk(
    {k: v for k, v in metrics.items() if k not in OTHER_SECTIONS}
  ):
    name, note = NAMES.get(path, (_title(path), ''))
    note = f'<small>{escape(note)}</small>' if note else ''
    rows.append(
      (
        f'{escape(name)} {tables.badge(figure)}{note}',
        tables.cell(figure),
        figure.counts,
      )
    )
  if not rows:
    return '<p class="muted">Image quality was not measured in this run.</p>'
  features = metrics.get('features') or {}
  origin = _matched(content.get('requests') or '')
  if features:
    digest = str(features.get('sha256', ''))[:16]
    origin += (
      f'<p>Features come from <b>{escape(features.get("name", "an unnamed network"))}'
      f'</b> (sha256 {escape(digest)}…). Distances depend on that network: compare '
      'them only with the real-to-real baseline here or with runs that name the same '
      'hash.</p>'
    )
  return origin + tables.table(
    ('Figure', 'Value (95 % interval)', 'Computed from'), rows
  )


def _matched(requests):
  """A caution where the samples' attributes do not follow the real cohort's."""
  if not requests.startswith('uniform:'):
    return ''
  return (
    '<p>Requests were drawn uniformly within the ranges of the schema, not as the real '
    'cohort is distributed: distances to real scans hold that difference, too. A prior '
    'released with noise (<code>sample.requests=private_prior</code>) is nearer.</p>'
  )


def memorisation(content):
  """Nearest neighbours: were training patients copied?"""
  entry = (content.get('metrics') or {}).get('memorisation') or {}
  spaces = {'': entry} if 'auc' in entry else entry
  parts = []
  for space, found in spaces.items():
    if isinstance(found, dict) and 'auc' in found:
      inherited = {'internal': entry.get('internal'), **found}
      parts.append(_memorised(space, inherited))
  if not parts:
    return '<p class="muted">Memorisation was not checked in this run.</p>'
  intro = (
    '<p>If the generator had copied patients, its samples would lie nearer to training '
    'patients than to patients it never saw. An area under the curve (AUC) of 0.5 '
    'means that the two cannot be told apart; 1 means that they can every time.</p>'
  )
  return intro + ''.join(parts)


def reconstruction(content):
  """What the autoencoder alone loses."""
  entry = (content.get('metrics') or {}).get('reconstruction') or {}
  units = {'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'ms_ssim': 'MS-SSIM'}
  rows = []
  for path, figure in tables.walk(entry):
    words = [units.get(part, part.replace('_', ' ')) for part in path.split('.')]
    name = f'{escape(", ".join(reversed(words)))} {tables.badge(figure)}'
    rows.append((name, tables.cell(figure), figure.counts))
  if not rows:
    return '<p class="muted">Reconstruction was not measured in this run.</p>'
  intro = (
    '<p>The autoencoder sets the ceiling: samples cannot be sharper than '
    'reconstructions.</p>'
  )
  return intro + tables.table(
    ('Figure', 'Value (95 % interval)', 'Computed from'), rows
  )


def training(content):
  """Loss curves of every stage that may show them."""
  panels = figures.training_curves(content.get('log') or ())
  if not panels:
    return '<p class="muted">The log holds no losses.</p>'
  note = ''
  if content.get('privacy'):
    note = (
      '<p class="muted">A stage trained on private scans shows no curve unless '
      'internal logging was switched on: its losses are not covered by the guarantee.'
      '</p>'
    )
  return pictures.plots(panels, 'training curve') + note


def _agreements(entries):
  """Table of {attribute: result of evaluation.control}, or nothing."""
  columns = [('Attribute', []), ('Pearson r (95 %)', []), ('MAE (95 %)', [])]
  columns += [('Bias', []), ('Accuracy (95 %)', []), ('Computed from', [])]
  for name, entry in entries.items():
    if not isinstance(entry, dict):
      continue
    found = [measured(entry, key) for key in ('pearson_r', 'mae', 'bias')]
    if 'accuracy' in entry:
      found.append(measured({**entry, 'value': entry['accuracy']}))
    else:
      found.append(None)
    badge = tables.INTERNAL if entry.get('internal') else ''
    cells = [f'{escape(name)} {badge}', *map(tables.cell, found)]
    cells.append(next((figure.counts for figure in found if figure), ''))
    for (_, column), value in zip(columns, cells, strict=True):
      column.append(value)
  columns = [(head, column) for head, column in columns if any(column)]
  if not columns:
    return ''
  heads, values = zip(*columns, strict=True)
  return tables.table(heads, zip(*values, strict=True))


def _memorised(space, found):
  auc, near = measured(found, 'auc'), measured(found, 'fraction')
  space = {'features': 'feature', 'voxels': 'voxel'}.get(space, space)
  title = f'<h3>In {escape(space.replace("_", " "))} space</h3>' if space else ''
  badge = tables.INTERNAL if found.get('internal') else ''
  counts = ', '.join(
    f'{number(found[key])} {word}'
    for key, word in (
      ('n_train', 'training'),
      ('n_held_out', 'held-out'),
      ('n_synthetic', 'samples'),
    )
    if is_number(found.get(key))
  )
  rows = [(f'AUC, training against held-out {badge}', tables.cell(auc), counts)]
  if near:
    usual = f' (expected {percent(found["expected"])})' if 'expected' in found else ''
    text = f'{percent(near.value)} ({percent(near.low)} to {percent(near.high)}){usual}'
    rows.append((f'Samples suspiciously near a training scan {badge}', text, counts))
  for key, value in (found.get('distances') or {}).items():
    words = key.replace('_', ' to ', 1) if key.startswith('synth') else key
    name = 'Median distance, ' + words.replace('held_out', 'held-out').replace(
      '_', ' to '
    )
    rows.append((f'{escape(name)} {badge}', number(value), ''))
  flagged = found.get('num_flagged')
  text = ''
  if is_number(flagged) and flagged:
    worst = (found.get('flagged') or [{}])[0]
    which = escape(worst.get('synthetic', '–'))
    text = (
      f'<p>{number(flagged)} sample(s) lie nearer to a training scan than 95 % of '
      f'held-out patients do; the nearest (sample {which})'
      f' at {percent(worst.get("ratio"))} of that threshold. The pairs are listed in '
      'metrics.json.</p>'
    )
  return (
    title
    + tables.table(('Figure', 'Value (95 % interval)', 'Computed from'), rows)
    + text
  )


def _title(path):
  words = path.replace('_', ' ').replace('.', ', ')
  return words[:1].upper() + words[1:]
