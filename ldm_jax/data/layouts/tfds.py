"""Data sets that `data/tfds_builders.py` wrote, read without TensorFlow.

<data_dir>/ldm_<layout>/<config>/<version>/   ArrayRecord files, metadata.json, ...
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os

import numpy as np

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.readers.grid import Grid, Remark
from ldm_jax.data.readers.volume import Volume
from ldm_jax.data.tables import table as tables


@dataclasses.dataclass(frozen=True)
class BuiltSource:
  """A scan in ArrayRecord files.

  Attributes:
    folder: of the files.
    index: of the scan in them.
    scan: fingerprint of the files that it was built from.
  """

  folder: str
  index: int
  scan: str

  def read(self) -> tuple[Volume, Volume | None]:
    """Scan and labels on one grid, as the layout read them from its files."""
    example = _examples(self.folder)[self.index]
    affine = np.asarray(example['affine'], np.float64)
    stored = json.loads(example['source'])
    source = Grid.from_json(stored)
    remarks = tuple(Remark(*remark) for remark in stored.get('remarks', ()))
    label = np.asarray(example['label'])
    return (
      Volume(np.asarray(example['image']), affine, source, remarks),
      Volume(label, affine, source) if label.size else None,
    )

  def fingerprint(self) -> str:
    """That of the original files, so that a store keeps one entry for both."""
    return self.scan


def read(
  root: str | os.PathLike, schema: Schema | None = None, name: str = ''
) -> Cohort:
  """Reads the list of records; each scan is read when it is needed.

  Args:
    root: folder of one version, <data_dir>/ldm_<layout>/<config>/<version>.
    schema: attributes; those the builder was given by default.
    name: of the cohort; the layout's by default.

  Raises:
    ValueError: no such folder, nothing built there, or tensorflow-datasets is missing.
  """
  folder = tables.require_folder(root)
  try:
    metadata = json.loads((folder / 'metadata.json').read_text())
    found = json.loads(metadata['cohort'])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{folder} holds no data set of ldm_jax.data.tfds_builders ({error!r}); '
      'expected the folder of one version, such as DATA_DIR/ldm_scd/default/1.0.0. '
      'Correct root, or run python -m ldm_jax.data.tfds_builders <layout> DATA_DIR'
    ) from error
  records = [
    Record(
      id=entry['id'],
      patient=entry['patient'],
      source=BuiltSource(str(folder), index, entry['fingerprint']),
      attributes=entry['attributes'],
      visit=entry['visit'],
      phase=entry['phase'],
    )
    for index, entry in enumerate(found['records'])
  ]
  schema = schema or Schema.from_config(found['schema'])
  return Cohort(name or found['name'], schema, tuple(records), tuple(found['notes']))


@functools.lru_cache(maxsize=4)
def _examples(folder: str):
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ValueError(
      f'The layout tfds needs tensorflow-datasets ({error}); install it with '
      'pip install "ldm-jax[tfds]".'
    ) from error
  return tfds.builder_from_directory(folder).as_data_source(split='train')
