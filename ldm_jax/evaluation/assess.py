"""All figures of metrics.json, from arrays: samples, real volumes, counterfactuals.

The reference is the held-out test cohort where there is one (patients of the private
population whom no model was trained on), else the private or the public cohort. Every
figure names the cohorts that it read, and is internal where these are not all public
(`data.cohorts.roles`): no privacy mechanism was applied to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.evaluation import (
  against_truth,
  causal,
  control,
  frechet,
  groups,
  image_similarity,
  intervals,
  label_maps,
  measuring_network,
  memorisation,
  same_patient,
  streams,
  two_sample,
)
from ldm_jax.evaluation.forecasts import longitudinal
from ldm_jax.types import Array, Config

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split

# Stage that trained the model -> cohorts that may stand for real scans, best first.
REFERENCES = {
  'adapt': ('test', 'private', 'public'),
  'diffusion': ('public_test', 'test', 'private', 'public'),
}


def assess(
  splits: Mapping[str, Split],
  samples: Mapping[str, Array],
  network: measuring_network.MeasuringNetwork | measuring_network.PooledLatents,
  reconstruct: Callable[[Array], Array],
  schema: Schema,
  section: Config,
  spacing_mm: Array,
  counterfactuals: Mapping[str, Array] | None = None,
  forecasts: Mapping[str, Array] | None = None,
  seed: int = 0,
  stage: str = 'adapt',
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
  """Computes the evidence about one synthetic cohort.

  Args:
    splits: name -> Split; the reference is chosen among them.
    samples: {'volumes' (n,d,h,w,1), 'requests' (n,k)}, and class indices (n,d,h,w):
      'labels' of a model that draws label maps, 'masks' that it was asked for; where
      patients have several volumes 'patients' (n,) and 'within_patient', the names of
      the attributes that differ.
    network: the measuring network, trained on public data.
    reconstruct: x -> decode(encode(x)), both (b,d,h,w,1).
    schema: attributes of the requests.
    section: config.evaluate.
    spacing_mm: (d,h,w) voxel size of the samples, of public origin. Real volumes have
      that of their own cohort.
    counterfactuals: None, or the arrays stored by `synthesis.write_counterfactuals`:
      {'source', 'counterfactual', 'null', 'nulls', 'returned', 'reference' volumes,
      'null_cycles', 'own', 'new' attributes, 'cohort', 'patients'}; for phantoms also
      'truth' and 'sdedit' volumes, 'truth_labels', 'source_labels'.
    forecasts: None, or the arrays stored by `synthesis.write_forecasts`: 'earlier',
      'predicted', 'later' volumes, 'patients', 'years', 'cohort'.
    seed: of the classifiers of `two_sample`.
    stage: 'adapt' or 'diffusion', whose model drew the samples: that of public patients
      alone is compared with held-out public ones, where there are any.

  Returns:
    (content of metrics.json, {measure: (requested (n,), measured (n,))} for scatter
    plots).

  Raises:
    ValueError: no cohort with at least two patients.
  """
  wanted = lambda name: not section.only or name in section.only
  name = _reference(splits, REFERENCES[stage])
  split = splits[name]
  real = streams.Stored(split)
  patients = np.asarray(split.patients)
  mark = {'reference': name, **roles.mark(name)}
  features_real = network.features(real)
  features_synthetic = network.features(samples['volumes'])
  people, resamples = samples.get('patients'), {'num_resamples': section.num_bootstrap}
  baseline = _baseline(features_real, patients, mark)
  metrics: dict[str, Any] = {
    'frechet': {
      **frechet.frechet_distance(
        features_real, features_synthetic, patients, people, **resamples
      ),
      **mark,
    },
    'kid': {
      **frechet.kernel_distance(
        features_real, features_synthetic, patients, people, **resamples
      ),
      **mark,
    },
    'baseline_real_real': baseline,
    'features': {'name': network.name, 'sha256': network.sha256},
  }
  metrics['frechet']['says_nothing'] = frechet.says_nothing(
    metrics['frechet']['value'], features_real, baseline
  )
  if section.groups.by:
    found = groups.distances(
      features_real,
      features_synthetic,
      (split.attributes, samples['requests']),
      patients,
      schema,
      section.groups,
      section.num_bootstrap,
    )
    metrics['groups'] = roles.marked(found, mark)
  if wanted('two_sample') and section.two_sample.enabled:
    metrics['two_sample'] = _told_apart(real, samples, patients, section, seed, mark)
  if wanted('ms_ssim'):
    metrics['ms_ssim'] = {
      'real': {
        **image_similarity.diversity(streams.OneChannel(real), groups=patients),
        **mark,
      },
      'synthetic': {
        **image_similarity.diversity(
          streams.OneChannel(samples['volumes']), groups=people
        ),
        **roles.mark(),
      },
    }
  if wanted('reconstruction'):
    values = streams.in_blocks(lambda x: _likeness(x, reconstruct(x)), real)
    metrics['reconstruction'] = _reconstruction_figures(values, patients, mark)
  if wanted('memorisation'):
    metrics['memorisation'] = _memorisation(splits, network, features_synthetic)
  if wanted('label_maps'):
    metrics |= label_maps.figures(split, samples, network, section, mark)
  sizes, spacing_from = {}, {'public'} & set(splits)
  if people is not None and wanted('within_patient'):
    of_both = spacing_mm, (roles.mark(*spacing_from), mark)
    found = same_patient.figures(samples, split, network, section, schema, *of_both)
    metrics['within_patient'] = found or None
  if section.measures and network.measures and wanted('control'):
    asked = section.measures, schema
    sizes = _requested_and_measured(*asked, samples, network, spacing_mm)
    metrics['control'] = {
      key: {**control.agreement(*values), **roles.mark(*spacing_from)}
      for key, values in sizes.items()
    }
    own = {'volumes': real, 'requests': split.attributes}
    of_real = _requested_and_measured(*asked, own, network, split.spacing_mm)
    metrics['control_real'] = {
      key: {**control.agreement(*values), **mark} for key, values in of_real.items()
    }
  if counterfactuals is not None and wanted('causal'):
    spacing = _own_spacing(splits, counterfactuals, spacing_mm)
    metrics['causal'] = soundness(counterfactuals, section, schema, network, spacing)
  if forecasts is not None:
    spacing = _own_spacing(splits, forecasts, spacing_mm)
    found = longitudinal(forecasts, network, section, spacing)
    metrics['causal'] = {**metrics.get('causal', {}), **found}
  return metrics, sizes


def _reference(splits, names):
  """The first cohort with at least two patients, which every distance needs."""
  present = [name for name in names if name in splits]
  enough = [name for name in present if splits[name].num_patients > 1]
  if not enough:
    raise ValueError(
      f'The cohorts {", ".join(present)} have one patient each, but distances and '
      'diversity need at least two. Add patients, or leave out the stage evaluate.'
    )
  return enough[0]


def _told_apart(real, samples, patients, section, seed, mark):
  """Figure of `two_sample.compare`; it and its halves say what they read."""
  settings, resamples = section.two_sample, section.num_bootstrap
  real, patients = streams.some(real, two_sample.MOST, seed, patients)
  drawn = samples['volumes'], two_sample.MOST, seed, samples.get('patients')
  synthetic, sources = streams.some(*drawn)
  found = two_sample.compare(
    real, synthetic, patients, settings, resamples, seed, sources
  )
  return {**found, 'real_halves': {**found['real_halves'], **mark}, **mark}


def _own_spacing(splits, edits, spacing_mm):
  """Voxel size of the cohort that was edited; of the samples for a given folder."""
  split = splits.get(str(edits['cohort']))
  return spacing_mm if split is None else split.spacing_mm


def _requested_and_measured(measures, schema, samples, network, spacing):
  asked = [each for each in measures if measuring_network.has_request(each, schema)]
  names = [entry['name'] for entry in asked]

  def sizes(volumes):
    labels = network.labels(volumes)
    found = measuring_network.measure(measures, labels, spacing)
    return np.stack([found[name] for name in names], -1)

  if not asked:
    return {}
  measured = streams.in_blocks(sizes, samples['volumes'])
  return {
    entry['name']: (
      measuring_network.requested(entry, schema, samples['requests']),
      measured[:, place],
    )
    for place, entry in enumerate(asked)
  }


def _baseline(features, patients, mark):
  if len(set(patients)) < 4:
    return None
  baseline = frechet.real_baseline(features, patients)
  return {
    key: {**value, **mark} if isinstance(value, dict) else value
    for key, value in baseline.items()
  }


def reconstruction(
  x: Array, x_hat: Array, patients: Array, mark: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
  """PSNR and SSIM of volumes (n,d,h,w,1), means over patients with intervals.

  Args:
    x, x_hat: volumes and their reconstructions.
    patients: (n,) patient of each volume.
    mark: entries to add to every figure.
  """
  return _reconstruction_figures(_likeness(x, x_hat), patients, mark)


def _likeness(x, x_hat):
  """PSNR and SSIM (n,2) of volumes (n,d,h,w,1)."""
  x, x_hat = x[..., 0], np.asarray(x_hat)[..., 0]
  found = image_similarity.psnr(x, x_hat), image_similarity.ssim(x, x_hat)
  return np.stack(found, -1)


def _reconstruction_figures(values, patients, mark=None):
  return {
    name: {**intervals.mean_figure(values[:, place], patients), **(mark or {})}
    for place, name in enumerate(('psnr', 'ssim'))
  }


def _memorisation(splits, network, features_synthetic):
  """Compares samples with the private (else public) and with the test patients."""
  train = splits.get('private', splits.get('public'))
  held_out = splits.get('test')
  if held_out is None or train is None:
    return None
  features = {
    split.name: network.features(streams.Stored(split)) for split in (train, held_out)
  }
  found = memorisation.memorisation(
    features[train.name],
    features[held_out.name],
    features_synthetic,
    train.patients,
    held_out.patients,
  )
  mark = roles.mark(train.name, held_out.name)
  return {'features': {**found, 'train': train.name, **mark}}


def soundness(
  edits: Mapping[str, Array],
  section: Config,
  schema: Schema,
  network: measuring_network.MeasuringNetwork | measuring_network.PooledLatents,
  spacing_mm: Array,
) -> dict[str, dict[str, Any]]:
  """Figures of edited scans: `causal`, and `against_truth` where a phantom knows it.

  Args:
    edits: the `counterfactuals` of `assess`.
    section, schema, network: as in `assess`.
    spacing_mm: (d,h,w) voxel size.
  """
  source, changed = edits['source'], edits['counterfactual']
  options = {'groups': edits['patients'], 'num_resamples': section.num_bootstrap}
  figures = {}
  for name, returned in (
    ('composition', edits['null']),
    (f'composition_{int(edits["null_cycles"])}', edits['nulls']),
  ):
    figures[name] = causal.composition(source, returned, **options)
    figures[f'{name}_psnr'] = causal.composition_psnr(
      edits['reference'], returned, **options
    )
  if 'returned' in edits:  # some editors cannot undo a change
    returned = edits['returned']
    figures['reversibility'] = causal.reversibility(source, returned, **options)
  if 'truth' in edits:
    triple = source, changed, edits['truth']
    baselines = {name: edits[name] for name in ('sdedit',) if name in edits}
    figures['truth'] = against_truth.error_to_truth(
      *triple, baselines=baselines, **options
    )
    figures['outside'] = against_truth.change_outside(*triple, **options)
  if section.measures and network.measures:
    figures |= _effects(edits, section, schema, network, spacing_mm, options)
  mark = roles.mark(str(edits['cohort']))
  return {name: _marked(figure, mark) for name, figure in figures.items()}


def _effects(edits, section, schema, network, spacing_mm, options):
  """Effectiveness for each measure whose value was requested to change."""
  labels = {
    'before': network.labels(edits['source']),
    'after': network.labels(edits['counterfactual']),
  }
  if 'truth' in edits:
    labels['truth_as_seen'] = network.labels(edits['truth'])
    for name in ('source', 'truth'):
      known = edits[f'{name}_labels']
      labels[name] = measuring_network.classes_of(known, section.labels)
  measured = {
    name: measuring_network.measure(section.measures, value, spacing_mm)
    for name, value in labels.items()
  }
  figures = {}
  for entry in section.measures:
    asked = _requested_change(entry, schema, edits, measured)
    if asked is None or not np.nanmax(np.abs(asked), initial=0) > 0:
      continue
    name = entry['name']
    for figure, seen in (('effectiveness', 'after'), ('measurable', 'truth_as_seen')):
      if seen in measured:
        change = measured[seen][name] - measured['before'][name]
        figures[f'{figure}_{name}'] = causal.effectiveness(asked, change, **options)
  return figures


def _marked(figure, mark):
  if 'value' in figure:
    return {**figure, **mark}
  return {name: {**part, **mark} for name, part in figure.items()}


def _requested_change(entry, schema, edits, measured):
  """Requested change of a measure (n,); its true change where none was requested."""
  if measuring_network.has_request(entry, schema):
    before, after = (
      measuring_network.requested(entry, schema, edits[k]) for k in ('own', 'new')
    )
    return after - before
  if 'truth' in measured:
    return measured['truth'][entry['name']] - measured['source'][entry['name']]
  return None
