"""Writes counterfactuals/: NIfTI volumes on their sources' grids, and a table."""

import numpy as np

from ldm_jax import atomic
from ldm_jax.config.parsing import to_plain
from ldm_jax.data.preprocessing import edit_masks, preprocess
from ldm_jax.data.readers import volume
from ldm_jax.synthesis import true_counterfactuals
from ldm_jax.synthesis.changes import in_turn, parse_changes
from ldm_jax.synthesis.edit import in_batches
from ldm_jax.synthesis.editors import registry, setting
from ldm_jax.synthesis.requests import row
from ldm_jax.workfolder import progress_bar

# Arrays kept so that evaluation and report need not read NIfTI.
COUNTERFACTUALS = 'counterfactuals.npz'
# What an editor is compared with where the truth is known.
BASELINE = 'sdedit'


def write_counterfactuals(config, work, trained, split, key=None):
  """Changes attributes of the first volumes of a split and writes them.

  Every result lies on the source file's own grid: same affine, same shape; what a mask
  keeps has the source's value there, bit for bit. Of a phantom the true counterfactual
  is written beside.

  Args:
    config, work: of the run.
    trained: synthesis.system.Trained.
    split: a prepared cohort or a folder's `data.folder_scans.Scans`.
    key: of the noise that some editors draw.

  Returns:
    Summary dict for the stage.

  Raises:
    ValueError: for an unknown attribute, or a value out of its range for every volume
      (volumes that the change does not fit are passed over).
  """
  section = config.counterfactual
  changes = _spelled(to_plain(section.set), trained.schema)
  is_cohort = split.name in config.data
  num = section.num if is_cohort else len(split)
  chosen, new, told = _changeable(split, changes, num)
  x, own = split.volumes(chosen), split.attributes[chosen]
  keep = edit_masks.kept(
    split,
    chosen,
    section.mask,
    tuple(section.edit_labels),
    tuple(section.keep_labels),
    section.margin,
  )
  true = true_counterfactuals.true_counterfactuals(config, split, chosen, own, new)
  found = _edited(config, trained, key, (x, own, new, keep), bool(true))
  is_internal = section.source != 'public'
  whose = wording_of(is_internal)
  rows = []
  for number, index in enumerate(chosen):
    name = split.ids[index]
    kept = None if keep is None else keep[number, ..., 0]
    kept = edit_masks.on_source_grid(split, index, kept, section.mask)
    images = {'source': x[number], 'counterfactual': found['counterfactual'][number]}
    if true:
      images['truth'] = true['truth'][number]
    _write(work, name, images, split.record(index), kept)
    rows.append(
      {
        'id': name,
        'cohort': split.name,
        'internal': is_internal,
        'attributes': whose,
        'editor': section.editor,
        'model': trained.name,
        **{f'source_{k}': v for k, v in row(trained.schema, own[number]).items()},
        **{f'requested_{k}': v for k, v in row(trained.schema, new[number]).items()},
      }
    )
  atomic.write_csv(work.path('counterfactuals', 'counterfactuals.csv'), rows)
  atomic.write_arrays(
    work.path('store', COUNTERFACTUALS),
    source=x,
    **found,
    null_cycles=section.null_cycles,
    **true,
    own=own,
    new=new,
    cohort='public' if not is_internal else split.name,
    patients=[split.patients[index] for index in chosen],
    ids=[split.ids[index] for index in chosen],
    texts=[
      f'{split.ids[i]}: {_told(own)}' for i, own in zip(chosen, told, strict=True)
    ],
  )
  summary = {'volumes': len(chosen), 'changes': changes, 'editor': section.editor}
  return {**summary, 'model': trained.name}


def wording_of(is_internal):
  """One sentence on whose scans and attribute values counterfactuals show."""
  if is_internal:
    return 'of real patients who are not public: edits of their scans, not to be shared'
  return 'of real public patients: edits of their scans'


def setting_of(config, trained, key=None):
  """The `setting.Setting` of a trained system under `config.counterfactual`."""
  section = config.counterfactual
  return setting.Setting(
    trained.apply_denoiser,
    trained.schedule,
    section.steps,
    prediction=trained.prediction,
    guidance=section.guidance,
    drift=trained.drift,
    key=key,
    time=trained.time,
    least_change=section.least_change,
    **trained.statistics,
  )


def _edited(config, trained, key, sources, truth_is_known):
  """Volumes (n,d,h,w,1) of the change, of null interventions, and of the way back."""
  section = config.counterfactual
  x, own, new, keep = sources
  setting = setting_of(config, trained, key)
  edit = registry.make(section.editor, setting, **section[section.editor])
  compares = truth_is_known and section.editor != BASELINE
  reverses = getattr(edit, 'reverses', True)  # not every model knows the way back
  num_runs = 1 + section.null_cycles + reverses + compares
  with progress_bar('counterfactual', num_runs, 'run') as advance:
    done = iter(range(1, num_runs + 1))

    def change(edit, volumes, before, after):
      result = in_batches(
        config.sample.batch_size,
        edit,
        trained.encode,
        trained.decode,
        trained.params,
        volumes,
        before,
        after,
        keep=keep,
        keep_detail=section.keep_detail,
      )
      advance(next(done))
      return result

    result = change(edit, x, own, new)
    null = nulls = change(edit, x, own, own).volume
    for _ in range(section.null_cycles - 1):
      nulls = change(edit, nulls, own, own).volume
    found = {
      'counterfactual': result.volume,
      'null': null,
      'nulls': nulls,
      # What an editor that changes nothing returns.
      'reference': x if section.keep_detail else result.reconstruction,
    }
    if reverses:
      found['returned'] = change(edit, result.volume, new, own).volume
    if compares:
      noised = registry.make(BASELINE, setting, **section[BASELINE])
      found[BASELINE] = change(noised, x, own, new).volume
  return found


def _write(work, name, images, record, kept):
  """One NIfTI file a kind on the source's grid, and the difference.

  Args:
    images: kind -> (d,h,w,1) in [0,1].
    kept: (d,h,w) bool on the source's grid, or None.
  """
  back = {kind: preprocess.invert(x[..., 0], record) for kind, x in images.items()}
  source, changed = back['source'].array, back['counterfactual'].array
  if kept is not None:
    changed[kept] = source[kept]
  arrays = {kind: scan.array for kind, scan in back.items()}
  for kind, array in {**arrays, 'difference': changed - source}.items():
    path = work.path('counterfactuals', f'{name}_{kind}.nii.gz')
    volume.write(path, array, back['source'].affine, back['source'].source)


def _changeable(split, changes, num):
  """The first `num` entries that the changes fit, their new attributes, the changes.

  Raises:
    ValueError: of `parse_changes`, when they fit no entry.
  """
  found, numbers, refused = [], {}, None
  for index, (vector, patient) in enumerate(
    zip(split.attributes, split.patients, strict=True)
  ):
    own = in_turn(changes, numbers.get(patient, len(numbers)))
    try:
      new = parse_changes(own, split.schema, vector)
    except ValueError as error:
      refused = error
      continue
    numbers.setdefault(patient, len(numbers))
    found.append((index, new, own))
    if len(found) == num:
      break
  if not found:
    raise refused
  chosen, new, told = zip(*found, strict=True)
  return np.asarray(chosen), np.stack(new), told


def _spelled(changes, schema):
  """Attribute names as the schema writes them, whatever the case of the flag."""
  names = {name.lower(): name for name in schema.names}
  return {names.get(key.lower(), key): value for key, value in changes.items()}


def _told(changes):
  return ', '.join(f'{name} {value}' for name, value in changes.items())
