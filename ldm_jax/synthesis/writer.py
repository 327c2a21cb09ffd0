"""Writes samples/ and counterfactuals/: NIfTI volumes with true affines, and tables."""

import csv
import shutil

import numpy as np

from ldm_jax.config import to_plain
from ldm_jax.data import preprocess, volume
from ldm_jax.synthesis import counterfactual as editing
from ldm_jax.synthesis import generate, requests, tiling, truth
from ldm_jax.training.mesh import make_mesh
from ldm_jax.workfolder import progress_bar

# Arrays kept beside the latents, so that evaluation and report need not read NIfTI.
SAMPLES = 'samples.npz'
SWEEPS = 'sweeps.npz'
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
  released = work.read_json(*requests.PRIOR) or {}
  vectors = requests.draw(config, trained.schema, public, released.get('prior'))
  mesh = make_mesh(**config.mesh)
  with progress_bar('sample', len(vectors), 'volume') as advance:
    volumes = generate.generate(
      _sampler(config.sample, trained, mesh),
      _decoder(config.sample, trained, mesh),
      trained.params,
      vectors,
      key,
      batch_size=config.sample.batch_size,
      progress=advance,
    )
  shutil.rmtree(work.root / 'samples', ignore_errors=True)
  rows = []
  for i, (x, vector) in enumerate(zip(volumes, vectors, strict=True)):
    name = f'synthetic_{i:05d}'
    volume.write(work.path('samples', f'{name}.nii.gz'), x[..., 0], affine)
    rows.append({'id': name, **_row(trained.schema, vector), 'seed': config.seed})
  _write_table(work.path('samples', 'samples.csv'), rows)
  np.savez(work.path('store', SAMPLES), volumes=volumes, requests=vectors)
  write_sweeps(config, work, trained, vectors[0], key)
  return {'volumes': len(volumes)}


def write_sweeps(config, work, trained, base, key, num_values=5):
  """Varies one attribute of one request at a time, seed fixed, for the report.

  Args:
    config, work, trained: as in `write_samples`.
    base: (k,) encoded request to start from.
    key: base key of the sampling noise.
    num_values: values per attribute, over the middle 70 % of its range.
  """
  mesh = make_mesh(**config.mesh)
  sampler = _sampler(config.sample, trained, mesh)
  decode = _decoder(config.sample, trained, mesh)
  names = [name for name in config.sample.sweep if name in trained.schema.names]
  sweeps = {}
  for name in names:
    vectors = np.repeat(base[None], num_values, axis=0)
    vectors[:, trained.schema.names.index(name)] = np.linspace(-0.7, 0.7, num_values)
    sweeps[f'{name}_volumes'] = generate.generate(
      sampler,
      decode,
      trained.params,
      vectors,
      key,
      batch_size=config.sample.batch_size,
      request_ids=np.zeros(num_values, int),
    )[..., 0]
    sweeps[f'{name}_values'] = np.array(
      [trained.schema.decode(vector)[name] for vector in vectors]
    )
  np.savez(work.path('store', SWEEPS), names=np.array(names), **sweeps)


def write_counterfactuals(config, work, trained, split):
  """Changes attributes of the first volumes of a prepared split and writes them.

  Every result lies on the source file's own grid: same affine, same shape. Of a phantom
  the true counterfactual is written beside.

  Returns:
    Summary dict for the stage.

  Raises:
    ValueError: for an unknown attribute, or a value out of its range for every volume
      (volumes that the change does not fit are passed over).
  """
  section = config.counterfactual
  changes = _spelled(to_plain(section.set), trained.schema)
  chosen, new = _changeable(split, changes, section.num)
  x, own = split.volumes(chosen), split.attributes[chosen]
  edit = editing.make_editor(
    trained.apply_denoiser,
    trained.schedule,
    num_steps=section.steps,
    prediction=trained.prediction,
    guidance=section.guidance,
    drift=trained.drift,
    **trained.statistics,
  )

  def change(volumes, before, after):
    return editing.counterfactual(
      edit,
      trained.encode,
      trained.decode,
      trained.params,
      volumes,
      before,
      after,
      keep_detail=section.keep_detail,
    )

  result, null = change(x, own, new), change(x, own, own)
  returned = change(np.asarray(result.volume), new, own)
  nulls = np.asarray(null.volume)
  for _ in range(section.null_cycles - 1):
    nulls = np.asarray(change(nulls, own, own).volume)
  true = truth.true_counterfactuals(config, split, chosen, own, new)
  shutil.rmtree(work.root / 'counterfactuals', ignore_errors=True)
  rows = []
  for row, index in enumerate(chosen):
    name = split.ids[index]
    images = {
      'source': x[row],
      'counterfactual': np.asarray(result.volume)[row],
      'difference': np.asarray(result.difference)[row],
    }
    if true:
      images['truth'] = true['truth'][row]
    for kind, image in images.items():
      path = work.path('counterfactuals', f'{name}_{kind}.nii.gz')
      _write_on_source_grid(path, image[..., 0], split.record(index), kind)
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
    nulls=nulls,
    # What an editor that changes nothing returns.
    reference=x if section.keep_detail else np.asarray(result.reconstruction),
    null_cycles=section.null_cycles,
    **true,
    returned=np.asarray(returned.volume),
    own=own,
    new=new,
    cohort=section.source,
    patients=[split.patients[index] for index in chosen],
    texts=[f'{split.ids[index]}: {_told(changes)}' for index in chosen],
  )
  return {'volumes': len(chosen), 'changes': changes}


def _decoder(section, trained, mesh):
  decode = generate.by_rows(trained.decode, mesh)
  if not section.decode_tile:
    return decode
  return tiling.tiled(decode, section.decode_tile, section.decode_overlap)


def _sampler(section, trained, mesh):
  return generate.make_sampler(
    trained.apply_denoiser,
    trained.schedule,
    trained.latent_shape,
    num_steps=section.steps,
    solver=section.solver,
    eta=section.eta,
    spacing=section.spacing,
    guidance=section.guidance,
    prediction=trained.prediction,
    drift=trained.drift,
    mesh=mesh,
    **trained.statistics,
  )


def _write_on_source_grid(path, image, record, kind):
  low, high = record['intensity']
  if kind == 'difference':
    record = {**record, 'intensity': [0.0, high - low]}
  back = preprocess.invert(image, record)
  volume.write(path, back.array, back.affine, back.source)


def _changeable(split, changes, num):
  """The first `num` entries that the changes fit, and their changed attributes.

  Raises:
    ValueError: of `parse_changes`, when they fit no entry.
  """
  chosen, new, refused = [], [], None
  for index, vector in enumerate(split.attributes):
    try:
      new.append(editing.parse_changes(changes, split.schema, vector))
      chosen.append(index)
    except ValueError as error:
      refused = error
    if len(chosen) == num:
      break
  if not chosen:
    raise refused
  return np.asarray(chosen), np.stack(new)


def _spelled(changes, schema):
  """Attribute names as the schema writes them, whatever the case of the flag."""
  names = {name.lower(): name for name in schema.names}
  return {names.get(key.lower(), key): value for key, value in changes.items()}


def _told(changes):
  return ', '.join(f'{name} {value}' for name, value in changes.items())


def _row(schema, vector):
  decoded = schema.decode(vector)
  return {
    name: ''
    if value is None
    else round(value, 4)
    if isinstance(value, float)
    else value
    for name, value in decoded.items()
  }


def _write_table(path, rows):
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
