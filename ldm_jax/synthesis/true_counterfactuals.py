"""True counterfactuals of phantoms, with the grid and intensities of their sources.

They exist for phantoms only, which can be rendered again with other attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ldm_jax.data import cohorts_of_config, layouts
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.phantom.source import CounterfactualSource
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.types import Config

if TYPE_CHECKING:
  from ldm_jax.data.folder_scans import Scans
  from ldm_jax.data.store.split import Split


def render(
  config: Config,
  split: Split | Scans,
  chosen: np.ndarray,
  own: np.ndarray,
  new: np.ndarray,
) -> dict[str, Any]:
  """Renders the volumes that a perfect editor would return.

  The attributes that the request changes are set, with their effects in the phantom's
  causal model: an older brain has larger ventricles. Attributes of the schema that the
  request does not change keep their values.

  Args:
    config: of the run.
    split: a prepared cohort or a folder's scans, which have no truth.
    chosen: (n,) entries of the split.
    own, new: (n, k) encoded attributes, of the source and as requested.

  Returns:
    {'truth': (n,d,h,w,1) in [0,1], 'truth_labels': (n,d,h,w) uint8, 'source_labels':
    the same of the sources}; {} where no truth is known.

  Raises:
    ValueError: values that the phantom cannot render; a crop that depends on the scan's
      content, so that source and truth would not be aligned.
  """
  if split.name not in cohorts_of_config.NAMES:
    return {}
  layout = layouts.LAYOUTS[config.data[split.name].layout]
  if not getattr(layout, 'KNOWN_COUNTERFACTUALS', False):
    return {}
  records = {
    record.id: record
    for record in cohorts_of_config.cohorts(config.data)[split.name].records
  }
  volumes, labels = [], []
  for index, before, after in zip(chosen, own, new, strict=True):
    record = records[split.ids[index]]
    changes = changed_values(split.schema, record.attributes, before, after)
    source = cast(CounterfactualSource, record.source)
    scan = source.counterfactual(changes).read()
    volume, label = _as_source(split, index, *scan)
    volumes.append(volume[..., None])
    labels.append(label)
  return {
    'truth': np.stack(volumes),
    'truth_labels': np.stack(labels),
    'source_labels': split.labels(chosen),
  }


def changed_values(
  schema: Schema, values: Mapping[str, Any], before: np.ndarray, after: np.ndarray
) -> dict[str, Any]:
  """The values to render with, from encoded vectors (k,) before and after.

  A value that does not change is taken from the record, because its code is rounded and
  would change the phantom slightly.

  Args:
    schema: of the encoded vectors.
    values: the record's own, by name.
    before, after: encoded attributes (k,).

  Raises:
    ValueError: an attribute that became unknown, which a phantom cannot render.
  """
  decoded, found = schema.decode(after), {}
  for name, old, new in zip(schema.names, before, after, strict=True):
    if np.isnan(new):
      raise ValueError(
        f'counterfactual.set makes {name} unknown, but a phantom can only be rendered '
        'with known values. Set a value.'
      )
    found[name] = values[name] if old == new else decoded[name]
  return found


def _as_source(split, index, scan, label):
  """Preprocesses a scan exactly as entry `index` was: array in [0,1] and labels.

  It uses the crop and the intensity window of the entry, not of the scan itself.
  """
  spec, record = preprocess.Spec.from_config(split.spec), split.record(index)
  # With the whole range as window nothing is clipped, so the scaling can be undone.
  whole = dataclasses.replace(
    spec, centre='grid', percentiles=(0, 100), foreground=False
  )
  found = preprocess.apply(whole, scan, label)
  if not np.allclose(found.record['offset'], record['offset']):
    raise ValueError(
      f'{split.ids[index]} was cropped by data.preprocess.centre={spec.centre!r}, '
      'which depends on the content of each scan, so its true counterfactual would not '
      "be aligned with it. Set data.preprocess.centre='grid'."
    )
  (own_low, own_high), (low, high) = found.record['intensity'], record['intensity']
  value = found.array * np.float32(own_high - own_low) + np.float32(own_low)
  value = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
  return (value * found.mask).astype(np.float32), found.label
