"""All figures of metrics.json, from arrays: samples, real volumes, counterfactuals.

The reference is the held-out test cohort where there is one (patients of the private
population who trained nothing), else the private or the public cohort. A figure that
looks at patients who are not public is marked internal: it passed no mechanism.
"""

import numpy as np

from ldm_jax.evaluation import (
  against_truth,
  causal,
  control,
  frechet,
  image_similarity,
  intervals,
  measuring_network,
  memorisation,
)
from ldm_jax.evaluation.forecasts import longitudinal


def assess(
  splits,
  samples,
  measurer,
  reconstruct,
  schema,
  section,
  counterfactuals=None,
  forecasts=None,
):
  """Computes the evidence about one synthetic cohort.

  Args:
    splits: name -> data.store.Split; the reference is chosen among them.
    samples: {'volumes' (n,d,h,w,1), 'requests' (n,k)}.
    measurer: evaluation.measurement measuring network, learned from public data.
    reconstruct: x -> decode(encode(x)), both (b,d,h,w,1).
    schema: attributes of the requests.
    section: config.evaluate.
    counterfactuals: None, or what
      `synthesis.write_counterfactuals.write_counterfactuals` keeps: {'source',
      'counterfactual', 'null', 'nulls', 'returned', 'reference' volumes, 'null_cycles',
      'own', 'new' attributes, 'cohort', 'patients'}; of phantoms also 'truth' and
      'sdedit' volumes, 'truth_labels', 'source_labels'.
    forecasts: None, or what `synthesis.write_forecasts` keeps: 'earlier', 'predicted',
      'later' volumes, 'patients', 'years', 'cohort'.

  Returns:
    (metrics, control pairs): metrics as the contract's metrics.json; the pairs are
    {name: (requested (n,), measured (n,))} for a scatter plot.
  """
  wanted = lambda name: not section.only or name in section.only
  name = _reference(splits)
  split = splits[name]
  real = split.volumes(np.arange(len(split)))
  patients = np.asarray(split.patients)
  mark = {'reference': name, 'internal': name != 'public'}
  features_real = measurer.features(real)
  features_synthetic = measurer.features(samples['volumes'])
  resamples = {'num_resamples': section.num_bootstrap}
  metrics = {
    'frechet': {
      **frechet.frechet_distance(
        features_real, features_synthetic, patients, **resamples
      ),
      **mark,
    },
    'kid': {
      **frechet.kernel_distance(
        features_real, features_synthetic, patients, **resamples
      ),
      **mark,
    },
    'baseline_real_real': _baseline(features_real, patients, mark),
    'features': {'name': measurer.name, 'sha256': measurer.sha256},
  }
  if wanted('ms_ssim'):
    metrics['ms_ssim'] = {
      'real': {**image_similarity.diversity(real[..., 0], groups=patients), **mark},
      'synthetic': image_similarity.diversity(samples['volumes'][..., 0]),
    }
  if wanted('reconstruction'):
    metrics['reconstruction'] = reconstruction(real, reconstruct(real), patients, mark)
  if wanted('memorisation'):
    metrics['memorisation'] = _memorisation(splits, measurer, features_synthetic)
  pairs = {}
  if section.measures and measurer.measures and wanted('control'):
    spacing = np.linalg.norm(split.affine(0)[:3, :3], axis=0)
    pairs = _pairs(section.measures, schema, samples, measurer, spacing)
    metrics['control'] = {
      key: control.agreement(*values) for key, values in pairs.items()
    }
    own = {'volumes': real, 'requests': split.attributes}
    metrics['control_real'] = {
      key: {**control.agreement(*values), **mark}
      for key, values in _pairs(
        section.measures, schema, own, measurer, spacing
      ).items()
    }
  if counterfactuals is not None and wanted('causal'):
    spacing = np.linalg.norm(split.affine(0)[:3, :3], axis=0)
    metrics['causal'] = _causal(counterfactuals, section, schema, measurer, spacing)
  if forecasts is not None:
    spacing = np.linalg.norm(split.affine(0)[:3, :3], axis=0)
    found = longitudinal(forecasts, measurer, section, spacing)
    metrics['causal'] = {**metrics.get('causal', {}), **found}
  return metrics, pairs


def _reference(splits):
  """The first cohort of at least two patients, which every distance needs."""
  present = [name for name in ('test', 'private', 'public') if name in splits]
  enough = [name for name in present if splits[name].num_patients > 1]
  if not enough:
    raise ValueError(
      f'The cohorts {", ".join(present)} have one patient each, but distances and '
      'diversity need at least two. Add patients, or leave out the stage evaluate.'
    )
  return enough[0]


def _pairs(measures, schema, samples, measurer, spacing):
  labels = measurer.labels(samples['volumes'])
  measured = measuring_network.measure(measures, labels, spacing)
  return {
    entry['name']: (
      measuring_network.requested(entry, schema, samples['requests']),
      measured[entry['name']],
    )
    for entry in measures
    if measuring_network.answers(entry, schema)
  }


def _baseline(features, patients, mark):
  if len(set(patients)) < 4:
    return None
  baseline = frechet.real_baseline(features, patients)
  return {
    key: {**value, **mark} if isinstance(value, dict) else value
    for key, value in baseline.items()
  }


def reconstruction(x, x_hat, patients, mark=None):
  """PSNR and SSIM of volumes (n,d,h,w,1), means over patients with intervals.

  Args:
    patients: (n,) patient of each volume.
    mark: entries that every figure carries.
  """
  x, x_hat, figures = x[..., 0], x_hat[..., 0], {}
  for name, values in (
    ('psnr', image_similarity.psnr(x, x_hat)),
    ('ssim', image_similarity.ssim(x, x_hat)),
  ):
    groups = intervals.grouped_indices(len(values), patients)
    means = np.array([values[group].mean() for group in groups])
    low, high = intervals.bootstrap_mean_interval(means)
    figures[name] = {
      'value': float(means.mean()),
      'low': low,
      'high': high,
      'n': len(means),
      **(mark or {}),
    }
  return figures


def _memorisation(splits, measurer, features_synthetic):
  """Training patients are the private ones, else the public; held-out ones the test."""
  train = splits.get('private', splits.get('public'))
  held_out = splits.get('test')
  if held_out is None or train is None:
    return None
  features = {
    split.name: measurer.features(split.volumes(np.arange(len(split))))
    for split in (train, held_out)
  }
  found = memorisation.memorisation(
    features[train.name],
    features[held_out.name],
    features_synthetic,
    train.patients,
    held_out.patients,
  )
  return {'features': {**found, 'train': train.name, 'internal': True}}


def _causal(edited, section, schema, measurer, spacing):
  """The laws of counterfactuals; against the truth where a phantom knows it."""
  groups, mark = edited['patients'], {'internal': str(edited['cohort']) != 'public'}
  source, changed = edited['source'], edited['counterfactual']
  options = {'groups': groups, 'num_resamples': section.num_bootstrap}
  figures = {}
  for name, returned in (
    ('composition', edited['null']),
    (f'composition_{int(edited["null_cycles"])}', edited['nulls']),
  ):
    figures[name] = causal.composition(source, returned, **options)
    figures[f'{name}_psnr'] = causal.composition_psnr(
      edited['reference'], returned, **options
    )
  if 'returned' in edited:  # not every editor finds the way back
    returned = edited['returned']
    figures['reversibility'] = causal.reversibility(source, returned, **options)
  known = 'truth' in edited
  if known:
    triple = source, changed, edited['truth']
    baselines = {name: edited[name] for name in ('sdedit',) if name in edited}
    figures['truth'] = against_truth.error_to_truth(
      *triple, baselines=baselines, **options
    )
    figures['outside'] = against_truth.change_outside(*triple, **options)
  if section.measures and measurer.measures:
    labels = {'before': measurer.labels(source), 'after': measurer.labels(changed)}
    if known:
      labels['truth_as_seen'] = measurer.labels(edited['truth'])
      for name in ('source', 'truth'):
        labels[name] = measuring_network.classes_of(
          edited[f'{name}_labels'], section.labels
        )
    measured = {
      name: measuring_network.measure(section.measures, value, spacing)
      for name, value in labels.items()
    }
    for entry in section.measures:
      asked = _asked(entry, schema, edited, measured)
      if asked is None or not np.nanmax(np.abs(asked), initial=0) > 0:
        continue
      name = entry['name']
      for figure, seen in (('effectiveness', 'after'), ('measurable', 'truth_as_seen')):
        if seen not in measured:
          continue
        change = measured[seen][name] - measured['before'][name]
        figures[f'{figure}_{name}'] = causal.effectiveness(asked, change, **options)
  return {name: _marked(figure, mark) for name, figure in figures.items()}


def _marked(figure, mark):
  if 'value' in figure:
    return {**figure, **mark}
  return {name: {**part, **mark} for name, part in figure.items()}


def _asked(entry, schema, edited, measured):
  """Requested change of a measure (n,); the true one where only that is known."""
  if measuring_network.answers(entry, schema):
    before, after = (
      measuring_network.requested(entry, schema, edited[k]) for k in ('own', 'new')
    )
    return after - before
  if 'truth' in measured:
    return measured['truth'][entry['name']] - measured['source'][entry['name']]
  return None
