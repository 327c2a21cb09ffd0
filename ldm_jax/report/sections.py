"""Report sections of words: summary, privacy statement, settings."""

import json

from ldm_jax.report import tables
from ldm_jax.report.wording import escape, is_number, measured, number, percent


def summary(content):
  """Headline figures as cards, with the warnings that a reader must not miss."""
  metrics, said = content.get('metrics') or {}, content['statement']
  tone = 'good' if said.private else 'warn'
  notice = f'<div class="notice {tone}"><p><b>{escape(said.headline)}</b>'
  if said.warnings:
    notice += ' ' + escape(said.warnings[0])
  notice += ' <a href="#privacy">More</a></p></div>'
  if tables.any_internal(metrics) or (content.get('images') or {}).get('internal'):
    notice += (
      '<div class="notice warn"><p>Parts marked '
      f'{tables.INTERNAL} show or were computed from private scans without noise. '
      'They are for the data owner: remove them before publishing this page.</p></div>'
    )
  cards = ''.join(_cards(content, metrics))
  made = ''.join(
    f'<dt>Model of the {escape(name)}</dt><dd>{escape(model)}</dd>'
    for name, model in (content.get('models') or {}).items()
  )
  notice += f'<dl>{made}</dl>' if made else ''
  return notice + (f'<div class="cards">{cards}</div>' if cards else '')


def privacy(content):
  """The privacy statement in words, and the table of releases."""
  said = content['statement']
  tone = 'good' if said.private else 'warn'
  parts = [f'<div class="notice {tone}"><p><b>{escape(said.headline)}</b></p></div>']
  parts += [f'<div class="notice warn"><p>{escape(w)}</p></div>' for w in said.warnings]
  for heading, paragraphs in said.sections:
    parts.append(f'<h3>{escape(heading)}</h3>')
    if len(paragraphs) > 1 and heading.startswith(
      ('What is not', 'What the guarantee')
    ):
      items = ''.join(f'<li>{escape(p)}</li>' for p in paragraphs)
      parts.append(f'<ul class="plain">{items}</ul>')
    else:
      parts += [f'<p>{escape(p)}</p>' for p in paragraphs]
    if heading == 'What was released' and said.releases:
      parts.append(_releases(said.releases))
  source = content.get('privacy') or {}
  stamps = [
    (name, source[key])
    for key, name in (('code_version', 'Code'), ('config_sha256', 'Config sha256'))
    if source.get(key)
  ]
  if stamps:
    entries = ''.join(f'<dt>{n}</dt><dd>{escape(v)}</dd>' for n, v in stamps)
    parts.append(f'<dl>{entries}</dl>')
  return ''.join(parts)


def config(content):
  """The whole config, folded away."""
  text = json.dumps(content.get('config') or {}, indent=2, default=str)
  return (
    f'<details><summary>Show all settings</summary><pre>{escape(text)}</pre></details>'
  )


def _cards(content, metrics):
  frechet = measured(metrics.get('frechet'))
  if frechet:
    baseline = metrics.get('baseline_real_real') or {}
    real = measured(baseline) or measured(
      baseline.get('frechet') if isinstance(baseline, dict) else None
    )
    note = tables.interval(frechet) + (
      f'; real to real {number(real.value)}' if real else ''
    )
    yield _card('Fréchet distance', number(frechet.value), note, frechet.internal)
  scores = [
    (name, measured(entry, 'pearson_r'))
    for name, entry in (metrics.get('control') or {}).items()
    if isinstance(entry, dict)
  ]
  scores = [(name, r) for name, r in scores if r and r.value is not None]
  for name, r in scores[:3]:
    yield _card(
      f'Control of {name}: r', number(r.value), tables.interval(r), r.internal
    )
  found = metrics.get('memorisation') or {}
  if 'auc' not in found:
    found = next((v for v in found.values() if isinstance(v, dict) and 'auc' in v), {})
  auc = measured(found, 'auc')
  if auc:
    note = tables.interval(auc) + '; 0.5 is no trace'
    yield _card('Memorisation AUC', number(auc.value), note, auc.internal)
  psnr = measured((metrics.get('reconstruction') or {}).get('psnr'))
  if psnr:
    note = tables.interval(psnr)
    yield _card('Reconstruction', f'{number(psnr.value)} dB', note, psnr.internal)
  source = content.get('privacy') or {}
  epsilon = source.get('epsilon')
  bounds = content['statement'].bounds
  if is_number(epsilon) and bounds:
    note = f'δ = {number(source.get("delta"))}; a membership guess is right ≤ '
    note += percent(bounds['accuracy'])
    yield _card('Privacy ε', number(float(epsilon)), note)


def _card(name, value, note, internal=False):
  badge = tables.INTERNAL if internal else ''
  return (
    f'<div class="card"><div class="name">{escape(name)} {badge}</div>'
    f'<div class="value">{escape(value)}</div>'
    f'<div class="note">{escape(note)}</div></div>'
  )


def _releases(releases):
  keys = (
    ('name', 'Release'),
    ('mechanism', 'Mechanism'),
    ('noise_multiplier', 'Noise σ'),
    ('sampling_probability', 'Sampling q'),
    ('steps', 'Steps'),
    ('clip_norm', 'Clip norm'),
    ('epsilon', 'ε alone'),
  )
  rows = [
    [
      number(release.get(key))
      if is_number(release.get(key))
      else escape(release.get(key) or '–')
      for key, _ in keys
    ]
    for release in releases
  ]
  return tables.table([name for _, name in keys], rows)
