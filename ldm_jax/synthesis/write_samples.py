"""Writes samples/: NIfTI volumes with true affines, and the table of requests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ldm_jax import atomic, processes
from ldm_jax.data.readers import volume
from ldm_jax.synthesis import generate, requests, residual_noise, tiling
from ldm_jax.synthesis.requests import row
from ldm_jax.synthesis.system import System
from ldm_jax.training.mesh import on_own_devices
from ldm_jax.types import Array, Config, Progress
from ldm_jax.workfolder import progress_bar

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split
  from ldm_jax.workfolder import WorkFolder

# Arrays stored beside the latents, so that evaluation and report need not read NIfTI.
SAMPLES = 'samples.npz'
SWEEPS = 'sweeps.npz'
SWEPT = 0.7  # a sweep covers this share of an attribute's range, around its middle


def write_samples(
  config: Config,
  work: WorkFolder,
  system: System,
  public: Split | None,
  affine: np.ndarray,
  key: jax.Array,
) -> dict[str, Any]:
  """Generates the requested volumes and writes them with their requests.

  Args:
    config, work: of the run.
    system: fitted system to draw from.
    public: prepared public split, or None.
    affine: (4,4) of the preprocessed grid.
    key: base key of the sampling noise.

  Returns:
    Summary dict for the stage.
  """
  released = work.read_json(*requests.PRIOR) or {}
  vectors = requests.draw(config, system.schema, public, released.get('prior'))
  draw = _drawer(config, system, key)
  names = [f'synthetic_{i:05d}' for i in range(len(vectors))]
  note = f'SYNTHETIC volume by ldm_jax, of no person. Model: {system.name}.'

  def written(batches):
    """The batches, written as NIfTI: all processes see all, each writes a share."""
    number = 0
    for batch in batches:
      for x in batch:
        if processes.has(number):
          path = work.path('samples', f'{names[number]}.nii.gz')
          with processes.all_writing():
            volume.write(path, x[..., 0], affine, note=note)
        number += 1
      yield batch

  with progress_bar('sample', len(vectors), 'volume') as advance:
    batches = written(draw(vectors, progress=advance))
    path = work.path('store', SAMPLES)
    atomic.write_streamed(path, 'volumes', len(vectors), batches, requests=vectors)
  origin = requests.origin(config)
  made_by = {'seed': config.seed, 'model': system.name, requests.COLUMN: origin}
  rows = [
    {'id': name, **row(system.schema, vector), **made_by}
    for name, vector in zip(names, vectors, strict=True)
  ]
  atomic.write_csv(work.path('samples', 'samples.csv'), rows)
  whole = lambda vectors, ids: np.concatenate(list(draw(vectors, ids)))
  sweeps = attribute_sweeps(whole, system, config.sample.sweep, vectors[0])
  atomic.write_arrays(work.path('store', SWEEPS), **sweeps)
  print(f'sample: drawn from the model {system.name}')
  return {'volumes': len(vectors), 'model': system.name, 'requests': origin}


def attribute_sweeps(
  draw: Callable[..., np.ndarray],
  system: System,
  names: list[str],
  base: np.ndarray,
  num_values: int = 5,
) -> dict[str, Any]:
  """Varies one attribute of one request at a time, with the same noise, for the report.

  Args:
    draw: (requests (n,k), request_ids) -> volumes (n,d,h,w,1).
    system: fitted system whose schema describes the requests.
    names: attributes to vary; those that the schema does not have are skipped.
    base: (k,) encoded request to start from.
    num_values: values per attribute, over the middle 70 % of its range.

  Returns:
    {'names', and of each name '<name>_volumes' (n,d,h,w) and '<name>_values' (n,)}.
  """
  names = [name for name in names if name in system.schema.names]
  sweeps: dict[str, Any] = {'names': np.array(names)}
  if not names:
    return sweeps
  vectors = np.tile(base, (len(names), num_values, 1))
  for vector, name in zip(vectors, names, strict=True):
    place = system.schema.names.index(name)
    vector[:, place] = np.linspace(-SWEPT, SWEPT, num_values)
  # All in one list, which fills the batches.
  rows = vectors.reshape(-1, len(base))
  volumes = draw(rows, np.zeros(len(rows), int))[..., 0]
  for name, vector, drawn in zip(
    names, vectors, np.split(volumes, len(names)), strict=True
  ):
    sweeps[f'{name}_volumes'] = drawn
    sweeps[f'{name}_values'] = np.array(
      [system.schema.decode(row)[name] for row in vector]
    )
  return sweeps


def compiled(
  config: Config, system: System
) -> tuple[Callable, Callable, Callable | None]:
  """`sample`, `decode` and `finish` of `generate.generate`, by `config.sample`."""
  section, mesh = config.sample, on_own_devices(config.mesh)
  # What one device decodes is compiled already, if an earlier stage needed it.
  decode = system.decode if mesh.size == 1 else generate.by_rows(system.decode, mesh)
  if section.decode_tile:
    decode = tiling.tiled(decode, section.decode_tile, section.decode_overlap)
  finish = None
  if system.residual is not None:
    finish = jax.jit(functools.partial(residual_noise.add, statistics=system.residual))
  sample = generate.sampler_of(
    config,
    section,
    system.apply_denoiser,
    system.latent_shape,
    drift=system.drift,
    mesh=mesh,
    **system.statistics,
  )
  return sample, decode, finish


def _drawer(config, system, key):
  """Returns draw(requests (n,k), request_ids=None, progress=None) -> batches."""
  sample, decode, finish = compiled(config, system)

  def draw(
    vectors: Array,
    request_ids: np.ndarray | None = None,
    progress: Progress | None = None,
  ) -> Iterator[np.ndarray]:
    return generate.stream(
      sample,
      decode,
      system.params,
      vectors,
      key,
      batch_size=config.sample.batch_size,
      request_ids=request_ids,
      progress=progress,
      finish=finish,
    )

  return draw
