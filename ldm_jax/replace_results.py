"""The results of a finished stage replace the old ones, safely under kills.

  checkpoints/<stage>          what the stage finished last
  checkpoints/<stage>.new      a run of it that has not finished: it resumes from here
  checkpoints/<stage>.new/outputs/...   what it has made of OUTPUTS so far

done.json in checkpoints/<stage>.new says that the run has finished. Before it exists,
no old result is touched; afterwards, `settle` completes the replacement, however often
that is killed: each of its steps may be repeated.
"""

import errno
import json
import os
import pathlib
import shutil

from ldm_jax import atomic

# Stage -> what it leaves outside checkpoints/<stage>, replaced together.
OUTPUTS = {
  'prepare': (
    *(
      f'store/{name}.json'
      for name in ('public', 'private', 'test', 'measuring', 'public_test')
    ),
    'privacy.json',
  ),
  'encode': ('report/autoencoder.html',),
  'sample': ('samples', 'store/samples.npz', 'store/sweeps.npz'),
  'counterfactual': (
    *('counterfactuals', 'store/counterfactuals.npz', 'store/forecasts.npz'),
  ),
  'evaluate': ('metrics.json', 'store/control.json'),
  'report': ('report/index.html', 'report/model_card.md'),
  'export': ('shareable', 'shareable.zip'),
}
# Stages whose earlier outputs stay where a later run makes none: a cohort's index says
# what was prepared of it, whether or not the config names the cohort now.
ADDING = ('prepare',)
NEW, ASIDE = '.new', '.old'
# Files whose content must not stay on the disk when a folder is removed.
SECRETS = ('noise_key',)


def beside(stage: str) -> str:
  """Name of the folder in checkpoints/ in which a stage runs."""
  return f'{stage}{NEW}'


def replace(root: pathlib.Path, stage: str) -> None:
  """Puts the results of a finished run of a stage in place of the old ones.

  Args:
    root: pathlib.Path of the work folder.
    stage: its name; where no run of it has finished, nothing happens.
  """
  current = root / 'checkpoints' / stage
  new = current.with_name(beside(stage))
  if not (new / 'done.json').is_file():
    return
  names = _listed(new / 'outputs.json', stage)
  for name in OUTPUTS.get(stage, ()):
    made, target = new / 'outputs' / name, root / name
    if made.exists():
      target.parent.mkdir(parents=True, exist_ok=True)
      _put(made, target)
    elif name not in names and stage not in ADDING:
      _remove(target)
    _remove(_aside(target))
  _remove(new / 'outputs')
  _put(new, current)
  _remove(_aside(current))


def settle(root: pathlib.Path) -> None:
  """Completes every interrupted replacement, and moves runs of older versions.

  Those ran in checkpoints/<stage> itself: an interrupted one goes on in
  checkpoints/<stage>.new.

  Args:
    root: pathlib.Path of the work folder.
  """
  folder = root / 'checkpoints'
  for path in sorted(folder.glob(f'[!.]*{NEW}')):
    replace(root, path.name.removesuffix(NEW))
  for path in sorted(folder.glob(f'.*{ASIDE}')):
    current = folder / path.name[1 : -len(ASIDE)]
    if current.exists():
      _remove(path)
    else:
      os.rename(path, current)
  for path in sorted(folder.glob('*/started.json')):
    old, stage = path.parent, path.parent.name
    is_cut = not (old / 'done.json').is_file() and '.' not in stage
    if is_cut and not old.with_name(beside(stage)).exists():
      os.rename(old, old.with_name(beside(stage)))


def _listed(path, stage):
  """The outputs that the run made; of a damaged list all, so that none is removed."""
  try:
    return json.loads(path.read_text()) if path.is_file() else ()
  except ValueError:
    return OUTPUTS.get(stage, ())


def _put(made, target):
  """Moves a file or folder over another; a folder there is first set aside."""
  if target.is_dir():
    _remove(_aside(target))
    os.rename(target, _aside(target))
  try:
    os.replace(made, target)
  except OSError as error:
    if error.errno != errno.EXDEV:
      raise
    # The store, say, is a link to another disk.
    near = target.with_name(f'.{target.name}{NEW}')
    _remove(near)
    (shutil.copytree if made.is_dir() else shutil.copy2)(made, near)
    os.replace(near, target)
    _remove(made)


def _aside(target):
  return target.with_name(f'.{target.name}{ASIDE}')


def remove_folder(folder: pathlib.Path) -> None:
  """Removes a folder, if it is there; secrets in it are overwritten before."""
  for name in SECRETS:
    for path in folder.rglob(name):
      atomic.destroy(path)
  shutil.rmtree(folder, ignore_errors=True)


def _remove(path):
  """Removes a file, a link or a folder, if it is there."""
  if path.is_dir() and not path.is_symlink():
    remove_folder(path)
  else:
    path.unlink(missing_ok=True)
