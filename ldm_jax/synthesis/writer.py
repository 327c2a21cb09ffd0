"""Writes samples/ and counterfactuals/: NIfTI volumes with true affines, and tables."""

import csv
import shutil

import jax
import numpy as np

from ldm_jax.config import to_plain
from ldm_jax.data import nifti
from ldm_jax.synthesis import counterfactual as editing
from ldm_jax.synthesis import generate, requests

SAMPLES = 'samples.npy'
COUNTERFACTUALS = 'counterfactuals.npz'


def write_samples(config, work, trained, public, affine, key):
  """Generates the requested volumes and writes them with their requests.

  Args:
    config, work: of the run.
    trained: synthesis.trained.Trained.
    public: prepared public split, or None.
    affine: (4,4) of the preprocessed grid.
    key: base key of the sampling noise.

  Returns:
    Summary dict for the stage.
  """
  vectors = requests.draw(config, trained.schema, public)
  section = config.sample
  sampler = generate.make_sampler(
    trained.apply_denoiser,
    trained.schedule,
    trained.latent_shape,
    num_steps=section.steps,
    solver=section.solver,
    eta=section.eta,
    guidance=section.guidance,
    prediction=trained.prediction,
    drift=trained.drift,
    **trained.statistics,
  )
  with work.bar('sample', len(vectors), 'volume') as bar:
    volumes = generate.generate(
      sampler,
      trained.decode,
      trained.params,
      vectors,
      key,
      batch_size=section.batch_size,
      progress=lambda done, _: bar.update(done - bar.n),
    )
  np.save(work.path('store', SAMPLES), volumes)
  folder = work.root / 'samples'
  shutil.rmtree(folder, ignore_errors=True)
  rows = []
  for i, (x, vector) in enumerate(zip(volumes, vectors, strict=True)):
    name = f'synthetic_{i:05d}'
    nifti.write(work.path('samples', f'{name}.nii.gz'), x[..., 0], affine)
    rows.append({'id': name, **_row(trained.schema, vector), 'seed': config.seed})
  _write_table(work.path('samples', 'samples.csv'), rows)
  np.save(work.path('store', 'requests.npy'), vectors)
  return {'volumes': len(volumes)}


def write_sweeps(config, work, trained, base, names, key, num_values=5):
  """Volumes of one request with one attribute varied over its range: the report's.

  Returns:
    Dict name -> (values, volumes (num_values,d,h,w)).
  """
  sweeps = {}
  sampler = generate.make_sampler(
    trained.apply_denoiser,
    trained.schedule,
    trained.latent_shape,
    num_steps=config.sample.steps,
    guidance=config.sample.guidance,
    prediction=trained.prediction,
    drift=trained.drift,
    **trained.statistics,
  )
  for name in names:
    index = trained.schema.names.index(name)
    codes = np.linspace(-0.7, 0.7, num_values)
    vectors = np.repeat(base[None], num_values, axis=0)
    vectors[:, index] = codes
    volumes = generate.generate(
      sampler,
      trained.decode,
      trained.params,
      vectors,
      key,
      batch_size=num_values,
      request_ids=np.zeros(num_values, int),
    )
    values = [trained.schema.decode(vector)[name] for vector in vectors]
    sweeps[name] = (values, volumes[..., 0])
  return sweeps


def write_counterfactuals(config, work, trained, split):
  """Changes attributes of the first volumes of a prepared split and writes them.

  Every result lies on the source file's own grid: same affine, same shape.

  Returns:
    Summary dict for the stage.

  Raises:
    ValueError: for an unknown attribute or a value out of its range.
  """
  section = config.counterfactual
  chosen = np.arange(min(section.num, len(split.ids)))
  x, own = split.volumes(chosen), split.attributes[chosen]
  changes = _spelled(to_plain(section.set), trained.schema)
  new = np.stack(
    [editing.parse_changes(changes, trained.schema, vector) for vector in own]
  )
  edit = editing.make_editor(
    trained.apply_denoiser,
    trained.schedule,
    num_steps=section.steps,
    prediction=trained.prediction,
    guidance=section.guidance,
    drift=trained.drift,
    **trained.statistics,
  )
  result = editing.counterfactual(
    edit,
    trained.encode,
    trained.decode,
    trained.params,
    x,
    own,
    new,
    keep_detail=section.keep_detail,
  )
  null = editing.counterfactual(
    edit,
    trained.encode,
    trained.decode,
    trained.params,
    x,
    own,
    own,
    keep_detail=section.keep_detail,
  )
  shutil.rmtree(work.root / 'counterfactuals', ignore_errors=True)
  rows = []
  for row, index in enumerate(chosen):
    name = split.ids[index]
    images = {
      'source': x[row],
      'counterfactual': np.asarray(result.volume)[row],
      'difference': np.asarray(result.difference)[row],
    }
    for kind, image in images.items():
      path = work.path('counterfactuals', f'{name}_{kind}.nii.gz')
      split.write_on_source_grid(path, index, image[..., 0], kind == 'difference')
    rows.append(
      {
        'id': name,
        'cohort': section.source,
        'internal': section.source != 'public',
        **{f'source_{k}': v for k, v in _row(trained.schema, own[row]).items()},
        **{f'requested_{k}': v for k, v in _row(trained.schema, new[row]).items()},
      }
    )
  _write_table(work.path('counterfactuals', 'counterfactuals.csv'), rows)
  np.savez(
    work.path('store', COUNTERFACTUALS),
    source=x,
    counterfactual=np.asarray(result.volume),
    null=np.asarray(null.volume),
    own=own,
    new=new,
  )
  return {'volumes': len(chosen), 'changes': changes}


def _spelled(changes, schema):
  """Attribute names as the schema writes them, whatever the case of the flag."""
  names = {name.lower(): name for name in schema.names}
  return {names.get(key.lower(), key): value for key, value in changes.items()}


def _row(schema, vector):
  decoded = schema.decode(vector)
  return {
    name: '' if value is None else round(value, 4) if isinstance(value, float) else value
    for name, value in decoded.items()
  }


def _write_table(path, rows):
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def sampling_key(key):
  """The base key of sampling noise."""
  return jax.random.fold_in(key, 7)
