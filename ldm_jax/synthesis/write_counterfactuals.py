"""Writes counterfactuals/: NIfTI volumes on their sources' grids, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ldm_jax import atomic, processes
from ldm_jax.config.parsing import to_plain
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import edit_masks, preprocess
from ldm_jax.data.readers import volume
from ldm_jax.synthesis import true_counterfactuals
from ldm_jax.synthesis.changes import in_turn, parse_changes
from ldm_jax.synthesis.edit import in_batches
from ldm_jax.synthesis.editors import registry
from ldm_jax.synthesis.editors.setting import Setting
from ldm_jax.synthesis.requests import row
from ldm_jax.synthesis.system import System
from ldm_jax.types import Config
from ldm_jax.workfolder import progress_bar

if TYPE_CHECKING:
  from ldm_jax.data.folder_scans import Scans
  from ldm_jax.data.store.split import Split
  from ldm_jax.workfolder import WorkFolder

# Arrays stored so that evaluation and report need not read NIfTI.
COUNTERFACTUALS = 'counterfactuals.npz'
# The editor that others are compared with where the truth is known.
BASELINE = 'sdedit'


def write_counterfactuals(
  config: Config,
  work: WorkFolder,
  system: System,
  split: Split | Scans,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Changes attributes of the first volumes of a split and writes them.

  Every result is on the source file's own grid, with the same affine and shape. Voxels
  that a mask keeps are bit-identical to the source's. For a phantom, the true
  counterfactual is written as well.

  Args:
    config, work: of the run.
    system: fitted system that the editor uses.
    split: a prepared cohort or a folder's `data.folder_scans.Scans`.
    key: of the noise that some editors draw.

  Returns:
    Summary dict for the stage.

  Raises:
    ValueError: for an unknown attribute, or a value that is out of range for every
      volume (volumes that the change does not fit are skipped).
  """
  section = config.counterfactual
  changes = _spelled(to_plain(section.set), system.schema)
  num = section.num if split.name in config.data else len(split)
  chosen, new, texts = changeable(split, changes, num)
  x, own = split.volumes(chosen), split.attributes[chosen]
  keep = edit_masks.kept(
    split,
    chosen,
    section.mask,
    tuple(section.edit_labels),
    tuple(section.keep_labels),
    section.margin,
  )
  true = true_counterfactuals.render(config, split, chosen, own, new)
  edits = _edited(config, system, key, (x, own, new, keep), bool(true))
  is_internal = section.source != 'public'
  rows = []
  for number, index in enumerate(chosen):
    name = split.ids[index]
    kept = None if keep is None else keep[number, ..., 0]
    kept = edit_masks.on_source_grid(split, index, kept, section.mask)
    images = {'source': x[number], 'counterfactual': edits['counterfactual'][number]}
    if true:
      images['truth'] = true['truth'][number]
    if processes.has(number):
      with processes.all_writing():
        _write(work, name, images, split.record(index), kept)
    rows.append(
      {
        'id': name,
        'cohort': split.name,
        'internal': is_internal,
        'attributes': wording_of(is_internal),
        'editor': section.editor,
        'model': system.name,
        **{f'source_{k}': v for k, v in row(system.schema, own[number]).items()},
        **{f'requested_{k}': v for k, v in row(system.schema, new[number]).items()},
      }
    )
  atomic.write_csv(work.path('counterfactuals', 'counterfactuals.csv'), rows)
  atomic.write_arrays(
    work.path('store', COUNTERFACTUALS),
    source=x,
    **edits,
    null_cycles=section.null_cycles,
    **true,
    own=own,
    new=new,
    cohort='public' if not is_internal else split.name,
    patients=[split.patients[index] for index in chosen],
    ids=[split.ids[index] for index in chosen],
    texts=[f'{split.ids[i]}: {text}' for i, text in zip(chosen, texts, strict=True)],
  )
  summary = {'volumes': len(chosen), 'changes': changes, 'editor': section.editor}
  return {**summary, 'model': system.name}


def wording_of(is_internal: bool) -> str:
  """One sentence on whose scans and attribute values counterfactuals show."""
  if is_internal:
    return 'of real patients who are not public: edits of their scans, not to be shared'
  return 'of real public patients: edits of their scans'


def setting_of(config: Config, system: System, key: jax.Array | None = None) -> Setting:
  """The editors' `Setting` for a system under `config.counterfactual`."""
  section = config.counterfactual
  return Setting(
    system.apply_denoiser,
    system.schedule,
    section.steps,
    prediction=system.prediction,
    guidance=section.guidance,
    drift=system.drift,
    key=key,
    time=system.time,
    least_change=section.least_change,
    **system.statistics,
  )


def changeable(
  split: Split | Scans, changes: Mapping[str, Any], num: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Entries of a split that the changes fit, at most `num`, and what each is asked for.

  Args:
    split: its ids, patients, schema and attributes are used.
    changes: attribute -> change, as in `changes.parse_changes`; alternatives ('+5|+10')
      go to patients in turn.
    num: how many entries at most, from the first.

  Returns:
    (indices (m,), new attributes (m,k), the changes of each as text).

  Raises:
    ValueError: of `parse_changes`, when they fit no entry.
  """
  found, refused = [], None
  numbers: dict[str, int] = {}  # of the patients so far
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
    text = ', '.join(f'{name} {value}' for name, value in own.items())
    found.append((index, new, text))
    if len(found) == num:
      break
  if not found:
    raise refused or ValueError(
      f'The cohort {split.name!r} has no scans to change. Name another '
      'counterfactual.source.'
    )
  chosen, vectors, texts = zip(*found, strict=True)
  return np.asarray(chosen), np.stack(vectors), list(texts)


def _edited(config, system, key, sources, truth_is_known):
  """Volumes (n,d,h,w,1) of the change, of null interventions, and of the way back."""
  section = config.counterfactual
  x, own, new, keep = sources
  setting = setting_of(config, system, key)
  edit = registry.make(section.editor, setting, **section[section.editor])
  compares = truth_is_known and section.editor != BASELINE
  reverses = getattr(edit, 'reverses', True)  # some models cannot undo a change
  num_runs = 1 + section.null_cycles + reverses + compares
  with progress_bar('counterfactual', num_runs, 'run') as advance:
    done = iter(range(1, num_runs + 1))

    def change(edit, volumes, before, after):
      result = in_batches(
        config.sample.batch_size,
        edit,
        system,
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
    edits = {
      'counterfactual': result.volume,
      'null': null,
      'nulls': nulls,
      # The result of an editor that changes nothing.
      'reference': x if section.keep_detail else result.reconstruction,
    }
    if reverses:
      edits['returned'] = change(edit, result.volume, new, own).volume
    if compares:
      baseline = registry.make(BASELINE, setting, **section[BASELINE])
      edits[BASELINE] = change(baseline, x, own, new).volume
  return edits


def _write(work, name, images, record, kept):
  """Writes one NIfTI file per image on the source's grid, and the difference.

  Args:
    images: 'source', 'counterfactual', ... -> (d,h,w,1) in [0,1].
    kept: (d,h,w) bool on the source's grid, or None.
  """
  back = {kind: preprocess.invert(x[..., 0], record) for kind, x in images.items()}
  source, changed = back['source'].array, back['counterfactual'].array
  if kept is not None:
    changed[kept] = source[kept]
  arrays = {kind: scan.array for kind, scan in back.items()}
  for kind, array in {**arrays, 'difference': changed - source}.items():
    path = work.path('counterfactuals', f'{name}_{kind}.nii.gz')
    note = '' if kind == 'source' else f'SYNTHETIC {kind} of a scan, by ldm_jax.'
    volume.write(path, array, back['source'].affine, back['source'].source, note)


def _spelled(changes: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
  """Attribute names as the schema writes them, whatever the case of the flag."""
  names = {name.lower(): name for name in schema.names}
  return {names.get(key.lower(), key): value for key, value in changes.items()}
