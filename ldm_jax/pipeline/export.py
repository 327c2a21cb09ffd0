"""The stage `export`: a folder and a zip of it that may leave, checked by reading back.

What they hold is in `sharing.package`. A model that protects nobody is refused unless
`export.unprotected` is set; then every page says so.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

import ldm_jax
from ldm_jax import atomic
from ldm_jax.config.parsing import flatten
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts import label_values
from ldm_jax.data.cohorts.attributes import Schema, labelled
from ldm_jax.pipeline.run import Run
from ldm_jax.report import content, index_page, model_card, public_page
from ldm_jax.sharing import dataset, package, read_back, settings, tensors
from ldm_jax.synthesis import requests, system, write_counterfactuals, write_samples
from ldm_jax.types import Config

# Layouts whose scans are read as stacks of thick slices.
STACKS = ('acdc', 'mnms', 'mnms2', 'scd', 'scd_dicom', 'ukbb')
# BIDS suffix of a layout's scans, where the field has one.
SUFFIXES = dict.fromkeys(('phantom_brain', 'adni', 'ixi', 'oasis'), 'T1w')
# Layouts whose scans are MR; BIDS suffixes of other modalities.
MR = (*STACKS, *SUFFIXES, 'phantom_cardiac')
OF_SUFFIX = {'ct': 'CT', 'pet': 'OT', 'XPCT': 'OT', '': 'OT'}
FLAG = '--config.export.unprotected=true'
START = 'NOT PRIVATE, exported with export.unprotected'


def check(run: Run) -> None:
  """Refuses, before anything is trained, a run whose model would protect nobody.

  Raises:
    ValueError: the config has no privacy or fixes the noise, and does not say that
      this is wanted.
  """
  config = run.config
  if config.export.unprotected or not config.data.private.layout:
    return
  privacy = config.adapt.privacy
  if privacy is None:
    reason = 'adapt.privacy is None'
  elif privacy.seed is not None:
    reason = f'adapt.privacy.seed is {privacy.seed}, so the noise can be repeated'
  else:
    return
  raise ValueError(
    f'The stage export shares what protects patients, but {_told(reason)}'
  )


def write(run: Run) -> dict[str, Any]:
  """Writes shareable/ and shareable.zip; returns the summary of the stage.

  Raises:
    ValueError: the model protects nobody, its samples are of another model, or reading
      back found something that must stay.
  """
  config, work = run.config, run.work
  privacy = work.read_json('privacy.json') or {}
  reason = unprotected_because(privacy)
  if reason and not config.export.unprotected:
    raise ValueError(f'The model was not exported: {_told(reason)}')
  drawn = work.read_json('checkpoints', 'sample', 'done.json') or {}
  if drawn.get('model') != run.system.name:
    raise ValueError(
      f'The samples are of {drawn.get("model")}, but the model is {run.system.name}. '
      'Draw them again: --stages=sample,export.'
    )
  about = _about(run, reason)
  folder = work.path(package.NAME)
  shutil.rmtree(folder, ignore_errors=True)
  _write_model(run, folder, about, privacy)
  _write_samples(run, folder, about, drawn['requests'])
  if config.export.counterfactuals:
    _write_counterfactuals(run, folder, about)
  _write_pages(run, folder, about)
  package.seal(folder)
  num_patients = privacy.get('num_patients')
  read_back.check(folder, _ids(run), num_patients)
  packed = work.path(f'{package.NAME}.zip')
  package.write_zip(folder, packed)
  read_back.check_zip(packed, folder)
  print(f'export: {work.root / packed.name}, {packed.stat().st_size / 1e6:.1f} MB')
  if about['warning']:
    print(f'export: WARNING {about["warning"]}')
  return {'protected': about['protected'], 'model': about['model']}


def unprotected_because(privacy: Mapping[str, Any]) -> str:
  """Why a privacy statement guarantees nothing; '' where it guarantees something."""
  if not privacy.get('releases'):
    return (
      'there is no release with noise: either the private cohort is empty, and whoever '
      'named the public one must decide whether it may leave, or it has not been used'
    )
  if privacy.get('demonstration_split'):
    return 'some of the private patients trained without protection (split by lot)'
  if privacy.get('demonstration_only'):
    return 'the noise of a release comes from a fixed or unknown key'
  if privacy.get('private') is not True:
    return 'privacy.json claims no privacy: some release has too little noise or none'
  return ''


def _told(reason: str) -> str:
  return (
    f'{reason}. Expected privacy with noise from the operating system: set '
    'adapt.privacy and --config.adapt.privacy.seed=None and begin in a new --workdir. '
    f'For a demonstration, or scans that were public before, set {FLAG}: every page '
    'then says that nobody is protected.'
  )


def _about(run: Run, reason: str) -> dict[str, Any]:
  config = run.config
  warning = (
    f'{START}: {reason}. Share it only if all scans behind it were public before.'
    if reason
    else ''
  )
  return {
    **described(run, reason),
    'warning': warning,
    'suffix': _suffix(config),
    'modality': _modality(config),
  }


def described(run: Run, reason: str) -> dict[str, Any]:
  """What every package says of a run's model; reason: of `unprotected_because`."""
  config = run.config
  return {
    'name': config.name or 'model',
    'model': run.system.name,
    'made_by': f'ldm_jax {ldm_jax.__version__}',
    'adapted': system.sampled_stage(config, run.work) == 'adapt',
    'protected': not reason,
    'skull_stripped': config.export.skull_stripped,
  }


def _suffix(config):
  """BIDS suffix of the samples, '' for none."""
  if config.export.bids_suffix:
    return config.export.bids_suffix
  section = next(
    (config.data[n] for n in ('private', 'public') if config.data[n].layout), None
  )
  if section is None:
    return ''
  if section.layout == 'bids':
    return section.options.get('suffix', 'T1w')
  return SUFFIXES.get(section.layout, '')


def _modality(config):
  """DICOM's modality of the samples."""
  if config.export.modality:
    return config.export.modality
  layouts = [config.data[n].layout for n in ('private', 'public')]
  if next(filter(None, layouts), '') in MR:
    return 'MR'
  return OF_SUFFIX.get(_suffix(config), 'MR')


def is_stack(data: Config) -> bool:
  """Whether the scans of `config.data` are read as stacks of thick slices."""
  section = next((data[n] for n in ('private', 'public') if data[n].layout), None)
  if section is None:
    return False
  return section.layout in STACKS or bool(section.options.get('stack', False))


def shared_schema(schema: Schema) -> list[dict[str, Any]]:
  """The attributes as they leave: without the columns of the tables they came from."""
  return [
    {key: value for key, value in entry.items() if key != 'column'}
    for entry in labelled(schema).to_config()
  ]


def without_paths(statement: Any) -> Any:
  """A JSON-able value in which of an absolute path in a text the last name stays."""
  if isinstance(statement, dict):
    return {key: without_paths(value) for key, value in statement.items()}
  if isinstance(statement, list):
    return [without_paths(value) for value in statement]
  if isinstance(statement, str):
    return re.sub(r'(?<![\w/<.:])(?:~|/)[^\s:;,\'"]*/([^\s:;,\'"/]+)', r'\1', statement)
  return statement


def _write_model(run, folder, about, privacy):
  config, shared = run.config, run.system
  value = None if shared.drift is None else np.asarray(shared.drift.value)
  plain = {
    'format': settings.FORMAT,
    'about': about,
    'residual_noise': shared.residual,
    **settings.cut(config, value),
  }
  atomic.write_text(folder / package.CONFIG, package.dumped(plain))
  params = {'autoencoder': run.autoencoder.params, 'denoiser': shared.params}
  weights = tensors.to_bytes(params, shared.statistics, config.export.dtype)
  atomic.write_bytes(folder / package.WEIGHTS, weights)
  grid = {
    'spec': run.spec.to_config(),
    'sample_spacing_mm': [float(mm) for mm in run.sample_spacing],
    'stack': is_stack(config.data),
  }
  atomic.write_text(folder / package.PREPROCESS, package.dumped(grid))
  schema = package.dumped(shared_schema(run.schema))
  atomic.write_text(folder / package.SCHEMA, schema)
  statement = package.dumped(without_paths(privacy))
  atomic.write_text(folder / package.PRIVACY, statement)
  released = run.work.read_json(*requests.PRIOR) or {}
  if released.get('prior'):
    atomic.write_text(folder / package.PRIOR, package.dumped(released['prior']))


def _write_samples(run, folder, about, origin):
  arrays = run.work.read_arrays(write_samples.SAMPLES)
  requests.check_not_copied(run.config, arrays['requests'], run.splits)
  volumes, names, values = arrays['volumes'][..., 0], None, run.label_values
  if 'labels' in arrays:
    names = label_values.named(values, run.config.evaluate.label_names)
    volumes = volumes, label_values.values_of(arrays['labels'], values)
  dataset.write(
    folder / package.SAMPLES,
    [volumes],
    arrays['requests'],
    labelled(run.schema),
    run.sample_affine,
    about,
    seed=run.config.seed,
    origin=origin,
    as_dicom=run.config.export.dicom,
    label_names=names,
    patients=arrays.get('patients'),
    within=[str(name) for name in arrays.get('within_patient', ())],
  )


def _write_counterfactuals(run, folder, about):
  """Edits of public scans, on the grid of the samples; no source and no id.

  Raises:
    ValueError: there are none, of this model and of public scans.
  """
  done = run.work.read_json('checkpoints', 'counterfactual', 'done.json') or {}
  again = (
    'Make them again: --stages=counterfactual,export --config.counterfactual.set...'
  )
  if not done.get('volumes') or done.get('model') != run.system.name:
    raise ValueError(
      f'export.counterfactuals is set, but the counterfactuals are of '
      f'{done.get("model")}, expected some of {run.system.name}. {again}'
    )
  arrays = run.work.read_arrays(write_counterfactuals.COUNTERFACTUALS)
  if str(arrays['cohort']) != 'public':
    raise ValueError(
      'The counterfactuals are of scans that are not public, and an edit of a scan is '
      f'a scan of that patient. {again}'
    )
  dataset.write(
    folder / package.COUNTERFACTUALS,
    [np.clip(arrays['counterfactual'][..., 0], 0, 1)],
    arrays['new'],
    labelled(run.schema),
    run.sample_affine,
    about,
    seed=run.config.seed,
    origin='what edits of public scans were asked for',
    as_dicom=run.config.export.dicom,
    are_edits=True,
  )


def _write_pages(run, folder, about):
  spacing = run.sample_spacing
  gathered = content.gather(run.config, run.work, {}, lambda x: x, spacing)
  plain = package.parsed(package.CONFIG, (folder / package.CONFIG).read_bytes())
  shown = public_page.public(
    gathered,
    config=plain['settings'],
    privacy=package.parsed(package.PRIVACY, (folder / package.PRIVACY).read_bytes()),
    warning=about['warning'],
  )
  atomic.write_text(folder / package.REPORT, index_page.html(shown))
  atomic.write_text(folder / package.CARD, model_card.markdown(shown))


def _ids(run):
  """Cohort -> ids of its patients and scans, of all cohorts that were ever prepared.

  From the store and not from the config, which need not name the private cohort to
  sample from its model.
  """
  found = {}
  for name in cohorts_of_config.NAMES:
    index = run.work.read_json('store', f'{name}.json') or {}
    entries = index.get('entries', ())
    found[name] = {str(each[key]) for each in entries for key in ('id', 'patient')}
  return found


def inputs(run: Run) -> dict[str, Any]:
  """What the folder is made of besides the samples, for the stage's fingerprint."""
  found = {name: run.work.read_json(name) for name in ('privacy.json', 'metrics.json')}
  if run.config.export.counterfactuals:
    found['counterfactuals'] = run.work.finished('counterfactual')
  return {**found, 'name': flatten(run.config)['name']}
