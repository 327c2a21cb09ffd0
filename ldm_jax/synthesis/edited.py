"""Writes counterfactuals/: NIfTI volumes on their sources' grids, and a table."""

import shutil

import numpy as np

from ldm_jax.config import to_plain
from ldm_jax.data import preprocess, volume
from ldm_jax.synthesis import counterfactual as editing
from ldm_jax.synthesis import editors, truth
from ldm_jax.synthesis.tables import row, write_table

# Arrays kept so that evaluation and report need not read NIfTI.
COUNTERFACTUALS = 'counterfactuals.npz'


def write_counterfactuals(config, work, trained, split, key=None):
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
  setting = editors.Setting(
    trained.apply_denoiser,
    trained.schedule,
    section.steps,
    prediction=trained.prediction,
    guidance=section.guidance,
    drift=trained.drift,
    key=key,
    time=trained.time,
    **trained.statistics,
  )
  edit = editors.make(section.editor, setting, **section[section.editor])

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
  # Not every editor finds the way back.
  reverses = getattr(edit, 'reverses', True)
  back = {}
  if reverses:
    back['returned'] = np.asarray(change(result.volume, new, own).volume)
  nulls = np.asarray(null.volume)
  for _ in range(section.null_cycles - 1):
    nulls = np.asarray(change(nulls, own, own).volume)
  true = truth.true_counterfactuals(config, split, chosen, own, new)
  shutil.rmtree(work.root / 'counterfactuals', ignore_errors=True)
  rows = []
  for number, index in enumerate(chosen):
    name = split.ids[index]
    images = {
      'source': x[number],
      'counterfactual': np.asarray(result.volume)[number],
      'difference': np.asarray(result.difference)[number],
    }
    if true:
      images['truth'] = true['truth'][number]
    for kind, image in images.items():
      path = work.path('counterfactuals', f'{name}_{kind}.nii.gz')
      _write_on_source_grid(path, image[..., 0], split.record(index), kind)
    rows.append(
      {
        'id': name,
        'cohort': section.source,
        'internal': section.source != 'public',
        **{f'source_{k}': v for k, v in row(trained.schema, own[number]).items()},
        **{f'requested_{k}': v for k, v in row(trained.schema, new[number]).items()},
      }
    )
  write_table(work.path('counterfactuals', 'counterfactuals.csv'), rows)
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
    **back,
    own=own,
    new=new,
    cohort=section.source,
    patients=[split.patients[index] for index in chosen],
    texts=[f'{split.ids[index]}: {_told(changes)}' for index in chosen],
  )
  return {'volumes': len(chosen), 'changes': changes}


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
