"""A short model card in Markdown: what the model is, is for, and is not for."""

from collections.abc import Mapping
from typing import Any

from ldm_jax.report.privacy_statement import demonstration_warning, statement
from ldm_jax.report.tables import walk
from ldm_jax.report.wording import measured

OMITTED = ('features', 'control', 'control_real', 'memorisation', 'two_sample')


def markdown(content: Mapping[str, Any]) -> str:
  """Model card: content as in `index_page.write` -> Markdown text."""
  metrics, said = content.get('metrics') or {}, statement(content.get('privacy'))
  title = _text(content.get('title') or 'Synthetic cohort')
  banner = content.get('banner') or demonstration_warning(content.get('privacy'))
  lines = [
    f'# Model card: {title}',
    '',
    *([f'> **{_text(banner)}**', ''] if banner else ()),
    '## What it is',
    'A latent diffusion model that draws medical image volumes with requested '
    'attributes (ldm_jax).',
    *_requests(content.get('requests')),
    *[
      f'- Model of the {_text(name)}: {_text(model)}.'
      for name, model in (content.get('models') or {}).items()
    ],
    '',
    '## Meant for',
    '- method development, teaching and data exchange where scans cannot be shared;',
    '- augmenting training data, with an evaluation on real data.',
    '',
    '## Not meant for',
    '- diagnosis or any decision about a patient;',
    '- conclusions about groups that the training data does not represent.',
    '',
    '## Privacy',
    f'**{_text(said.headline)}**',
    *[f'- Warning: {_text(warning)}' for warning in said.warnings],
    '',
  ]
  for heading, paragraphs in said.sections:
    if heading in (
      'What is protected',
      'What the two numbers mean',
      'What is not covered',
    ):
      lines += [f'### {heading}', *[f'- {_text(p)}' for p in paragraphs], '']
  rows = _rows(metrics)
  if rows:
    lines += [
      '## Evidence',
      '| figure | value (95 % interval) | computed from |',
      '|---|---|---|',
      *rows,
      '',
    ]
  features = metrics.get('features') or {}
  if features:
    lines += [
      f'Features: {_text(features.get("name", "unnamed network"))}, sha256 '
      f'{_text(features.get("sha256", "unknown"))}.',
      '',
    ]
  return '\n'.join(lines)


def _requests(origin):
  """A line on whose attribute values the samples have, where that is known."""
  if not origin:
    return []
  name, _, values = origin.partition(': ')
  return ['', f'Requested attributes of the samples ({_text(name)}): {_text(values)}.']


def _rows(metrics):
  rows = []
  for path, figure in walk({k: v for k, v in metrics.items() if k not in OMITTED}):
    rows.append(_row(path.replace('_', ' ').replace('.', ', '), figure))
  for name, entry in (metrics.get('control') or {}).items():
    for key, words in (('pearson_r', 'Pearson r'), ('mae', 'mean absolute error')):
      figure = measured(entry, key)
      if figure:
        rows.append(_row(f'control of {name}, {words}', figure))
  told_apart = measured(metrics.get('two_sample') or {}, 'auc')
  if told_apart:
    name = 'AUC of telling real from synthetic volumes (0.5: cannot, 1: always)'
    rows.append(_row(name, told_apart))
  memorised = metrics.get('memorisation') or {}
  for found in (memorised, *memorised.values()):
    auc = measured(found, 'auc') if isinstance(found, dict) else None
    if auc:
      rows.append(_row('memorisation AUC (0.5: no trace)', auc))
  return rows


def _row(name, figure):
  mark = ' (internal)' if figure.internal else ''
  return f'| {_text(name)}{mark} | {figure.text} | {figure.counts} |'


def _text(text):
  """Text that cannot break out of a table cell or start HTML."""
  plain = ' '.join(str(text).split())
  return plain.replace('&', '&amp;').replace('<', '&lt;').replace('|', '\\|')
