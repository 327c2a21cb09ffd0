"""Writes samples/: NIfTI volumes with true affines, and the table of requests.

Of a model that draws label maps also <id>_seg.nii.gz, on the same grid, and labels.json
with what each value means.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import atomic, processes
from ldm_jax.config import sample as sample_rules
from ldm_jax.data.cohorts import label_values
from ldm_jax.data.readers import volume
from ldm_jax.synthesis import (
  generate,
  mask_requests,
  requests,
  residual_noise,
  tiling,
  within_patient,
)
from ldm_jax.synthesis.requests import row
from ldm_jax.synthesis.system import System
from ldm_jax.training import label_masks, networks
from ldm_jax.training.mesh import on_own_devices
from ldm_jax.types import Array, Config, Progress
from ldm_jax.workfolder import progress_bar

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split
  from ldm_jax.workfolder import WorkFolder

# Arrays stored beside the latents, so that evaluation and report need not read NIfTI.
SAMPLES = 'samples.npz'
SWEEPS = 'sweeps.npz'
LABELS = ('samples', 'labels.json')  # label value -> what it means
SEGMENTATION = '_seg.nii.gz'
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
  draw, asked = _drawer(config, system, key), vectors
  masks = mask_requests.draw(config, public, len(vectors))
  if masks is not None:
    asked = np.concatenate([vectors, label_masks.columns(config, masks)], 1)
  values, maps = networks.label_values(config), list[np.ndarray]()
  within = sample_rules.within_patient(config)
  patients = [
    f'synthetic_{i:05d}' for i in within_patient.patients(within, len(vectors))
  ]
  num = within_patient.num_volumes(within)
  names = [f'{p}_{i % num + 1}' for i, p in enumerate(patients)] if within else patients
  note = f'SYNTHETIC volume by ldm_jax, of no person. Model: {system.name}.'

  def written(batches):
    """The batches, written as NIfTI: all processes see all, each writes a share."""
    number = 0
    for batch in batches:
      volumes, classes = parted(batch)
      for i, x in enumerate(volumes):
        if processes.has(number):
          path = work.path('samples', f'{names[number]}.nii.gz')
          with processes.all_writing():
            volume.write(path, x[..., 0], affine, note=note)
            if classes is not None:
              labels = label_values.values_of(classes[i], values)
              path = path.with_name(f'{names[number]}{SEGMENTATION}')
              of_map = note.replace('volume', 'label map', 1)
              volume.write(path, labels, affine, note=of_map)
        number += 1
      if classes is not None:
        maps.append(classes)
      yield volumes

  arrays: dict[str, Any] = {'requests': vectors}
  if system.decode_labelled is not None:
    arrays['labels'] = lambda: np.concatenate(maps)
    meanings = label_values.named(values, config.evaluate.label_names)
    work.write_json(label_values.listed(meanings), *LABELS)
  if masks is not None:
    arrays['masks'] = masks.astype(np.uint8)
  if within:
    arrays['patients'] = within_patient.patients(within, len(vectors))
    arrays['within_patient'] = np.array(list(within))
  with progress_bar('sample', len(vectors), 'volume') as advance:
    ids = noise_ids(config, len(vectors))
    batches = written(draw(asked, progress=advance, **ids))
    path = work.path('store', SAMPLES)
    atomic.write_streamed(path, 'volumes', len(vectors), batches, **arrays)
  origin = requests.origin(config)
  made_by = {'seed': config.seed, 'model': system.name, requests.COLUMN: origin}
  rows = [
    {
      'id': name,
      **({'patient': patient} if within else {}),
      **row(system.schema, vector),
      **made_by,
    }
    for name, patient, vector in zip(names, patients, vectors, strict=True)
  ]
  atomic.write_csv(work.path('samples', 'samples.csv'), rows)
  whole = lambda vectors, ids: np.concatenate(list(draw(vectors, ids)))
  sweeps = attribute_sweeps(whole, system, config.sample.sweep, asked[0])
  atomic.write_arrays(work.path('store', SWEEPS), **sweeps)
  print(f'sample: drawn from the model {system.name}')
  return {'volumes': len(vectors), 'model': system.name, 'requests': origin}


def noise_ids(config: Config, num: int) -> dict[str, np.ndarray]:
  """The ids of `generate.stream` of which the noise of `num` volumes follows.

  Volumes of a patient share the noise of the sampler. What `residual_noise` adds is a
  scan's own, as the noise of a scanner is. {} where every volume is its own patient.
  """
  within = sample_rules.within_patient(config)
  if not within:
    return {}
  people = within_patient.patients(within, num)
  return {'request_ids': people, 'finish_ids': np.arange(num)}


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
    base: (k,) encoded request to start from; a label map's columns may follow.
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
      [system.schema.decode(row[: len(system.schema)])[name] for row in vector]
    )
  return sweeps


def compiled(
  config: Config, system: System
) -> tuple[Callable, Callable, Callable | None]:
  """`sample`, `decode` and `finish` of `generate.generate`, by `config.sample`.

  Of a model that draws label maps, the volumes (n,d,h,w,2) are those of `parted`.
  """
  section, mesh = config.sample, on_own_devices(config.mesh)
  # What one device decodes is compiled already, if an earlier stage needed it.
  decode: Callable[[Array], Array] = system.decode_labelled or system.decode
  decode = decode if mesh.size == 1 else generate.by_rows(decode, mesh)
  if section.decode_tile:
    decode = tiling.tiled(decode, section.decode_tile, section.decode_overlap)
  finish: Callable[[Array, jax.Array], Array] | None = None
  if system.residual is not None:
    finish = functools.partial(residual_noise.add, statistics=system.residual)
  if system.decode_labelled is not None:
    finish = functools.partial(_most_likely, finish or (lambda x, keys: x))
  finish = None if finish is None else jax.jit(finish)
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


def _most_likely(finish, decoded, keys):
  """Volumes and logits (b,d,h,w,1 + k) -> finished volumes and classes (b,d,h,w,2)."""
  classes = jnp.argmax(decoded[..., 1:], -1).astype(decoded.dtype)
  return jnp.concatenate([finish(decoded[..., :1], keys), classes[..., None]], -1)


def parted(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
  """Drawn volumes -> volumes (n,d,h,w,1) and their classes (n,d,h,w) uint8, or None.

  Args:
    drawn: (n,d,h,w,1), or (n,d,h,w,2) with the class of each voxel beside it.
  """
  if drawn.shape[-1] == 1:
    return drawn, None
  return drawn[..., :1], drawn[..., 1].astype(np.uint8)


def _drawer(config, system, key):
  """Returns draw(requests (n,k), ...) -> batches, further arguments of `stream`."""
  sample, decode, finish = compiled(config, system)

  def draw(
    vectors: Array,
    request_ids: np.ndarray | None = None,
    progress: Progress | None = None,
    finish_ids: np.ndarray | None = None,
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
      finish_ids=finish_ids,
    )

  return draw
