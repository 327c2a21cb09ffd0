"""Writes samples/: NIfTI volumes with true affines, and the table of requests."""

import numpy as np

from ldm_jax import atomic
from ldm_jax.data.readers import volume
from ldm_jax.synthesis import generate, requests, tiling
from ldm_jax.synthesis.requests import row
from ldm_jax.training.mesh import make_mesh
from ldm_jax.workfolder import progress_bar

# Arrays kept beside the latents, so that evaluation and report need not read NIfTI.
SAMPLES = 'samples.npz'
SWEEPS = 'sweeps.npz'


def write_samples(config, work, trained, public, affine, key):
  """Generates the requested volumes and writes them with their requests.

  Args:
    config, work: of the run.
    trained: synthesis.system.Trained.
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
  rows, origin = [], {requests.COLUMN: requests.origin(config)}
  for i, (x, vector) in enumerate(zip(volumes, vectors, strict=True)):
    name = f'synthetic_{i:05d}'
    volume.write(work.path('samples', f'{name}.nii.gz'), x[..., 0], affine)
    asked = row(trained.schema, vector)
    rows.append(
      {'id': name, **asked, 'seed': config.seed, 'model': trained.name, **origin}
    )
  atomic.write_csv(work.path('samples', 'samples.csv'), rows)
  atomic.write_arrays(work.path('store', SAMPLES), volumes=volumes, requests=vectors)
  write_sweeps(config, work, trained, vectors[0], key)
  print(f'sample: drawn from the model {trained.name}')
  return {'volumes': len(volumes), 'model': trained.name}


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
  atomic.write_arrays(work.path('store', SWEEPS), names=np.array(names), **sweeps)


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
