"""Scans of a folder given on the command line: preprocessed in memory, never stored.

The folder is read by the layout `folder`; without a table every NIfTI file is the scan
of one patient without attributes. These patients are not declared public, so whatever
is made from them is for the owner of the scans only.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ldm_jax.config import parsing
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record, oriented
from ldm_jax.data.layouts import folder
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers.dicom import container
from ldm_jax.data.tables import table as tables

# Name of the cohort in tables and figures.
NAME = 'folder'
NIFTI = ('.nii', '.nii.gz')


class Scans:
  """The interface of `data.store.split.Split`, for a cohort that is not stored.

  Attributes:
    name, schema, spec, ids, patients: as of a `Split`.
    attributes: (n,k) float32, encoded, NaN where missing.
  """

  def __init__(self, cohort: Cohort, spec: preprocess.Spec):
    self.name, self.schema, self.spec = cohort.name, cohort.schema, spec.to_config()
    cohort = oriented(cohort, spec.orientation)
    self.ids = [record.id for record in cohort.records]
    self.patients = [record.patient for record in cohort.records]
    self.attributes = np.stack(
      [cohort.schema.encode(record.attributes) for record in cohort.records]
    ).astype(np.float32)
    self._records = cohort.records
    self._processed: dict[int, preprocess.Processed] = {}

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(d,h,w) of every volume."""
    return tuple(self.spec['shape'])

  def volumes(self, indices: np.ndarray) -> np.ndarray:
    """(m,) -> (m,d,h,w,1) float32 in [0,1]. Raises ValueError for unusable scans."""
    return np.stack([self._read(i).array for i in np.atleast_1d(indices)])[..., None]

  def labels(self, indices: np.ndarray) -> np.ndarray | None:
    """(m,) -> (m,d,h,w) uint8, or None when one of the scans has no labels."""
    found = [self._read(i).label for i in np.atleast_1d(indices)]
    known = [label for label in found if label is not None]
    return np.stack(known) if len(known) == len(found) else None

  def record(self, index: int) -> dict[str, Any]:
    """What `preprocess.invert` needs to put scan `index` back on its own grid."""
    return self._read(index).record

  def _read(self, index: int) -> preprocess.Processed:
    if index not in self._processed:
      scan = self._records[index].source.read()
      spec = preprocess.Spec.from_config(self.spec)
      self._processed[index] = preprocess.apply(spec, *scan)
    return self._processed[index]


def read(root: str, schema: Schema, options: Mapping[str, Any] | None = None) -> Cohort:
  """Records of a folder, with those of the schema's attributes that its table has.

  Args:
    root: the folder.
    schema: of the model; case does not matter in names of columns. An attribute
      without a column is missing.
    options: of the layout `folder`.

  Raises:
    ValueError: no folder, no scan, an option or a cell that cannot be used.
  """
  path = tables.require_folder(root, 'counterfactual.source')
  options = {name: _value(name, text) for name, text in (options or {}).items()}
  try:
    return _read(root, path, schema, options)
  except ValueError as error:
    flag = r'--config.counterfactual.options.\1=...'
    raise ValueError(parsing.OPTION.sub(flag, str(error))) from error


def _read(
  root: str, path: pathlib.Path, schema: Schema, options: dict[str, Any]
) -> Cohort:
  if not options.get('table') and not _has_table(path):
    return _without_table(path, schema)
  columns = tables.read(tables.find(path, options.get('table', ''))).columns
  known = {column.lower(): column for column in columns}
  named = [
    dataclasses.replace(a, column=known[(a.column or a.name).lower()])
    for a in schema
    if (a.column or a.name).lower() in known
  ]
  found = folder.read(root, Schema(tuple(named)), name=NAME, **options)
  return dataclasses.replace(found, schema=schema)


def check(source: str, cohorts: Collection[str]) -> None:
  """Raises ValueError unless a source is one of the cohorts or a folder."""
  if source not in cohorts and not pathlib.Path(source).expanduser().is_dir():
    raise ValueError(
      f'counterfactual.source is {source!r}; expected a prepared cohort '
      f'({", ".join(cohorts)}) or a folder of scans. Change counterfactual.source.'
    )


def stamp(place: str) -> list:
  """Name, size and time of change of the files of a path; [] where there are none.

  The path is a folder, a file, or has {id} in it, which matches any text.
  """
  path = pathlib.Path(place.replace('{id}', '*')).expanduser()
  if not place:
    return []
  found = path.rglob('*') if path.is_dir() else path.parent.glob(path.name)
  return [container.stamp(str(file)) for file in sorted(found) if file.is_file()]


def _value(name: str, text: Any) -> Any:
  """The value of an option that is text on a command line."""
  try:
    return ast.literal_eval(str(text)) if name in ('frame', 'stack') else text
  except (ValueError, SyntaxError):
    raise ValueError(
      f'counterfactual.options.{name} is {text!r}; expected a whole number (frame) '
      'or True or False (stack).'
    ) from None


def _has_table(path: pathlib.Path) -> bool:
  return any(
    file.suffix.lower() in ('.tsv', '.csv', '.xlsx') for file in path.iterdir()
  )


def _without_table(path: pathlib.Path, schema: Schema) -> Cohort:
  files = sorted(file for file in path.iterdir() if file.name.endswith(NIFTI))
  if not files:
    raise ValueError(
      f'{path} holds neither a table of patients nor a .nii or .nii.gz file; expected '
      'one of the two. Change counterfactual.source.'
    )
  records = []
  for file in files:
    name = file.name.removesuffix('.gz').removesuffix('.nii').replace(' ', '-')
    records.append(Record(name, name, FileSource(str(file))))
  return Cohort(NAME, schema, tuple(records))
