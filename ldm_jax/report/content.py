"""Gathers what the other stages left in the work folder for the report."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_jax.config.parsing import to_plain
from ldm_jax.data import demonstration_split
from ldm_jax.synthesis import requests
from ldm_jax.synthesis.write_counterfactuals import COUNTERFACTUALS
from ldm_jax.synthesis.write_samples import LABELS, SAMPLES, SWEEPS
from ldm_jax.types import Array, Config

if TYPE_CHECKING:
  from ldm_jax.data.store.store import Split
  from ldm_jax.workfolder import WorkFolder

NUM_PICTURES = 8
PAGES = {
  'autoencoder.html': 'What the autoencoder loses',
  'doctor.html': 'What the doctor found in data and config',
}


def gather(
  config: Config,
  work: 'WorkFolder',
  splits: 'Mapping[str, Split]',
  reconstruct: Callable[[Array], Array],
  spacing: Array | None = None,
) -> dict[str, Any]:
  """The content dict of `index_page.write`.

  Args:
    config, work: of the run.
    splits: name -> data.store.Split of the prepared cohorts.
    reconstruct: x (n,d,h,w,1) -> decode(encode(x)).
    spacing: (3,) mm of a voxel (d,h,w) of synthetic volumes.
  """
  metrics = work.read_json('metrics.json') or {}
  privacy = work.read_json('privacy.json')
  drawn = work.read_json('checkpoints', 'sample', 'done.json') or {}
  return {
    'title': f'{config.name}: synthetic cohort',
    'banner': demonstration_split.warning(config.data),
    'config': to_plain(config),
    # Folders of before this was kept: as the config says.
    'requests': drawn.get('requests') or requests.origin(config),
    'models': _models(work),
    'metrics': {key: value for key, value in metrics.items() if value is not None},
    'privacy': privacy,
    'log': work.events(),
    'images': _images(work, splits, reconstruct),
    'spacing': spacing,
    'label_names': [each['name'] for each in work.read_json(*LABELS) or ()],
    'pages': {
      name: title
      for name, title in PAGES.items()
      if work.path('report', name).is_file()
    },
    'control': {
      name: tuple(map(np.asarray, pair))
      for name, pair in (work.read_json('store', 'control.json') or {}).items()
    },
  }


def _models(work):
  """What was made -> the model that made it, as the finished stages say."""
  done = {
    name: work.read_json('checkpoints', stage, 'done.json') or {}
    for name, stage in (('samples', 'sample'), ('counterfactuals', 'counterfactual'))
  }
  return {name: found['model'] for name, found in done.items() if found.get('model')}


def _images(work, splits, reconstruct):
  images = {'internal': []}
  # Public scans only: the page is made to be shown around.
  split = splits.get('public')
  if split is not None:
    chosen = np.arange(min(NUM_PICTURES, len(split)))
    x = split.volumes(chosen)
    images['real'] = x[..., 0]
    images['reconstructed'] = np.asarray(reconstruct(x))[..., 0]
  samples = work.read_arrays(SAMPLES)
  if samples is not None:
    images['synthetic'] = samples['volumes'][: 2 * NUM_PICTURES, ..., 0]
    if 'patients' in samples:
      images['patients'] = samples['patients'][: 2 * NUM_PICTURES]
    if 'labels' in samples:
      images['labels'] = samples['labels'][: 2 * NUM_PICTURES]
  sweeps = work.read_arrays(SWEEPS)
  if sweeps is not None:
    images['sweeps'] = {
      name: (sweeps[f'{name}_values'], sweeps[f'{name}_volumes'])
      for name in map(str, sweeps['names'])
    }
  edited = work.read_arrays(COUNTERFACTUALS)
  if edited is not None:
    if str(edited['cohort']) != 'public':
      images['internal'].append('counterfactuals')
    images['counterfactuals'] = [
      (source[..., 0], changed[..., 0], changed[..., 0] - source[..., 0], str(text))
      for source, changed, text in zip(
        edited['source'], edited['counterfactual'], edited['texts'], strict=True
      )
    ]
    if 'truth' in edited:
      images['truths'] = edited['truth'][..., 0]
  return images
