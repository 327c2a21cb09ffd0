"""True counterfactuals of phantoms, on the grid and in the window of their sources.

Only a phantom knows what its patient would look like otherwise; for other data there
is nothing to return.
"""

import dataclasses

import numpy as np

from ldm_jax.data import cohorts_of_config, layouts
from ldm_jax.data.preprocessing import preprocess


def true_counterfactuals(config, split, chosen, own, new):
  """Renders what a perfect editor would return.

  Every attribute of the schema that the request changes is set, and what follows from
  it by the phantom's mechanism follows: an older brain has larger ventricles. An
  attribute that the schema names and the request leaves alone is held.

  Args:
    config: of the run.
    split: prepared cohort, or scans of which nothing else is known.
    chosen: (n,) entries of the split.
    own, new: (n, k) encoded attributes, of the source and as requested.

  Returns:
    {'truth': (n,d,h,w,1) in [0,1], 'truth_labels': (n,d,h,w) uint8, 'source_labels':
    the same of the sources}; {} where no truth is known.

  Raises:
    ValueError: of the phantom, for values that it cannot render; a box that follows the
      scan's content, so that source and truth would not lie in one place.
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
    scan = record.source.counterfactual(changes).read()
    volume, label = _as_source(split, index, *scan)
    volumes.append(volume[..., None])
    labels.append(label)
  return {
    'truth': np.stack(volumes),
    'truth_labels': np.stack(labels),
    'source_labels': split.labels(chosen),
  }


def changed_values(schema, values, before, after):
  """What to set: name -> value, of the encoded vectors (k,) before and after.

  A value that stays is the record's own, not its rounded code, so that a change of
  nothing is a change of nothing.

  Raises:
    ValueError: an attribute that became unknown: no phantom can be of unknown age.
  """
  decoded, found = schema.decode(after), {}
  for name, old, new in zip(schema.names, before, after, strict=True):
    if np.isnan(new):
      raise ValueError(
        f'counterfactual.set makes {name} unknown, but a phantom has a true '
        'counterfactual for known values only. Set a value.'
      )
    found[name] = values[name] if old == new else decoded[name]
  return found


def _as_source(split, index, scan, label):
  """Preprocesses a scan exactly as entry `index` was: array in [0,1] and labels.

  Both need one box and one window of intensities: the entry's, not the scan's own.
  """
  spec, record = preprocess.Spec.from_config(split.spec), split.record(index)
  # With the whole range as window nothing saturates, and the step can be undone.
  whole = dataclasses.replace(
    spec, centre='grid', percentiles=(0, 100), foreground=False
  )
  found = preprocess.apply(whole, scan, label)
  if not np.allclose(found.record['offset'], record['offset']):
    raise ValueError(
      f'{split.ids[index]} was cropped by data.preprocess.centre={spec.centre!r}, '
      'which follows the content of each scan; to compare with the true counterfactual '
      "of a phantom, data.preprocess.centre='grid' is required."
    )
  (own_low, own_high), (low, high) = found.record['intensity'], record['intensity']
  value = found.array * np.float32(own_high - own_low) + np.float32(own_low)
  value = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
  return (value * found.mask).astype(np.float32), found.label
