"""The report of a run, report/index.html: samples, evidence and privacy."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ldm_jax.report import edit_evidence, evidence, galleries, page, plots, tables
from ldm_jax.report.privacy_statement import (
  Statement,
  demonstration_warning,
  statement,
)
from ldm_jax.report.wording import Measured, is_number, measured, number, percent

SECTIONS = {
  'summary': 'Summary',
  'samples': 'Samples',
  'control': 'Control',
  'quality': 'Image quality',
  'utility': 'Utility',
  'memorisation': 'Memorisation',
  'reconstruction': 'Reconstruction',
  'counterfactuals': 'Counterfactuals',
  'training': 'Training',
  'privacy': 'Privacy statement',
  'config': 'Settings',
}
MAX_BYTES = 8_000_000  # fits into a mail
FEWEST_PIXELS = 50_000
RELEASES = {
  'name': 'Release',
  'mechanism': 'Mechanism',
  'noise_multiplier': 'Noise σ',
  'sampling_probability': 'Sampling q',
  'steps': 'Steps',
  'clip_norm': 'Clip norm',
  'epsilon': 'ε alone',
}


def write(path: str | os.PathLike, content: Mapping[str, Any]) -> pathlib.Path:
  """Writes the report atomically and returns its path.

  Args:
    path: file to write; its folder is created.
    content: every key optional:
      title: headline.
      banner: sentence in red above everything; by default that of a privacy.json of
        a demonstration split.
      models: dict 'samples' | 'counterfactuals' -> the model that made them.
      config: dict of settings. metrics: metrics.json. privacy: privacy.json or None.
      requests: whose attribute values the samples' requests are, 'origin: sentence'.
      label_names: what the classes of images['labels'] mean.
      spacing: (3,) mm of a voxel (d,h,w), for true proportions; cubes without.
      pages: file name -> title of other pages in the folder, to be linked.
      leaves: True for the page that `public_page` made: it has nothing to hide.
      log: list of events {'stage', 'step', 'loss', ...}.
      images: dict real, reconstructed, synthetic (n,d,h,w); labels, class indices
        (n,d,h,w) of the synthetic ones, and patients (n,), numbers of theirs if these
        have several volumes; sweeps {attribute:
        (values (n,), volumes (n,d,h,w))}; counterfactuals [(source, counterfactual,
        difference, text)] of (d,h,w); truths, their true counterfactuals; internal:
        names among these that show scans of private patients.
      control: {attribute: (requested (n,), measured (n,))}.

  Raises:
    OSError: when the file cannot be written.
    ValueError: for images of an unusable shape.
  """
  return page.write(path, html(content))


def html(content: Mapping[str, Any]) -> str:
  """The report as text: content as in `write` -> HTML document.

  Pictures of large volumes are thinned until the page has at most MAX_BYTES.
  """
  pixels = galleries.PIXELS
  document = _html(content, pixels)
  while len(document.encode()) > MAX_BYTES and pixels > FEWEST_PIXELS:
    pixels //= 2
    document = _html(content, pixels)
  return document


def _html(content, pixels):
  metrics, images = content.get('metrics') or {}, content.get('images') or {}
  privacy, spacing = content.get('privacy') or {}, content.get('spacing')
  measured_on = metrics.get('control') or {}
  said = statement(content.get('privacy'))
  stamps = {'Code': 'code_version', 'Config sha256': 'config_sha256'}
  return page.render(
    'index.html',
    title=content.get('title') or 'ldm_jax report',
    banner=content.get('banner') or demonstration_warning(privacy),
    sections=SECTIONS,
    said=said,
    any_internal=tables.any_internal(metrics) or bool(images.get('internal')),
    leaves=bool(content.get('leaves')),
    pages=content.get('pages') or {},
    models=[
      (f'Model of the {name}', model)
      for name, model in (content.get('models') or {}).items()
    ],
    cards=list(_cards(metrics, privacy, said)),
    requests=_requests(content.get('requests')),
    samples=galleries.samples(images, spacing, pixels),
    labels=galleries.labels(images, content.get('label_names') or (), pixels),
    label_maps=evidence.label_maps(
      metrics.get('label_maps') or {}, metrics.get('mask_control') or {}
    ),
    within_patient=evidence.within_patient(metrics.get('within_patient') or {}),
    control={
      'synthetic': evidence.agreements(metrics.get('control') or {}),
      'real': evidence.agreements(metrics.get('control_real') or {}),
      'plots': galleries.panels(
        plots.scatter(content.get('control') or {}),
        'measured against requested',
        [name for name, entry in measured_on.items() if tables.any_internal(entry)],
      ),
    },
    sweeps=galleries.sweeps(images.get('sweeps') or {}, pixels),
    quality=evidence.quality(metrics),
    features=metrics.get('features') or {},
    utility=evidence.utility(metrics.get('utility') or {}),
    by_group=evidence.by_group(
      metrics.get('groups') or {}, (metrics.get('utility') or {}).get('groups') or {}
    ),
    memorisation=evidence.memorisation(metrics.get('memorisation') or {}),
    reconstruction=evidence.reconstruction(metrics.get('reconstruction') or {}),
    counterfactuals=galleries.counterfactuals(images, spacing, pixels),
    soundness=edit_evidence.soundness(metrics.get('causal') or {}),
    training=evidence.training(content.get('log') or ()),
    has_privacy=bool(privacy),
    trade_off=galleries.panels(
      plots.trade_off(
        privacy['curves'] if said.bounds and privacy.get('curves') else {}
      ),
      'what the releases of this run bound',
    ),
    releases=_releases(said),
    stamps=[(name, privacy[key]) for name, key in stamps.items() if privacy.get(key)],
    config=page.settings(content.get('config')),
  )


def _requests(origin: str | None) -> dict | None:
  """Whose attribute values the samples were asked for, and the tone of the notice."""
  if not origin:
    return None
  name, _, sentence = origin.partition(': ')
  tone = {'public': 'warn', 'table': ''}.get(name.split()[0], 'good')
  return {'name': name, 'sentence': sentence, 'tone': tone}


def _cards(metrics: Mapping, privacy: Mapping, said: Statement) -> Iterator[dict]:
  """Headline figures."""
  frechet = measured(metrics.get('frechet'))
  if frechet:
    baseline = metrics.get('baseline_real_real') or {}
    inner = baseline.get('frechet') if isinstance(baseline, dict) else None
    real = measured(baseline) or measured(inner)
    note = f'; real to real {number(real.value)}' if real else ''
    yield _card('Fréchet distance', frechet, note)
  told_apart = metrics.get('two_sample') or {}
  real_or_synthetic = measured(told_apart, 'auc')
  if real_or_synthetic and real_or_synthetic.value is not None:
    note = '; says nothing, too few volumes' if told_apart.get('says_nothing') else ''
    note = note or '; 0.5 cannot tell, 1 always'
    yield _card('Real or synthetic? AUC', real_or_synthetic, note)
  scores = [
    (name, measured(entry, 'pearson_r'))
    for name, entry in (metrics.get('control') or {}).items()
    if isinstance(entry, dict)
  ]
  for name, r in [(name, r) for name, r in scores if r and r.value is not None][:3]:
    yield _card(f'Control of {name}: r', r)
  found = metrics.get('memorisation') or {}
  if 'auc' not in found:
    found = next((v for v in found.values() if isinstance(v, dict) and 'auc' in v), {})
  auc = measured(found, 'auc')
  if auc:
    yield _card('Memorisation AUC', auc, '; 0.5 is no trace')
  psnr = measured((metrics.get('reconstruction') or {}).get('psnr'))
  if psnr:
    yield _card('Reconstruction', psnr, unit=' dB')
  epsilon = privacy.get('epsilon')
  if is_number(epsilon) and said.bounds:
    yield {
      'name': 'Privacy ε',
      'value': number(float(epsilon)),
      'note': f'δ = {number(privacy.get("delta_total", privacy.get("delta")))}; a '
      f'membership guess is right ≤ {_guesses(said)}',
      'internal': False,
    }


def _guesses(said):
  """Largest share of right guesses, under both relations."""
  empty = f'{percent(said.bounds["accuracy"])} (a patient or an empty record)'
  if not said.substitution:
    return empty
  return f'{percent(said.substitution["accuracy"])} (which of two patients), {empty}'


def _card(name: str, figure: Measured, note: str = '', unit: str = '') -> dict:
  return {
    'name': name,
    'value': number(figure.value) + unit,
    'note': tables.interval(figure) + note,
    'internal': figure.internal,
  }


def _releases(said: Statement) -> dict:
  rows = []
  for release in said.releases:
    found = [release.get(key) for key in RELEASES]
    name, *cells = [number(v) if is_number(v) else v or '–' for v in found]
    rows.append(tables.row(name, cells))
  return {'head': list(RELEASES.values()), 'rows': rows}
