"""What the arms of a sweep share: the store, public networks, equal fine-tunings."""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

SHARED_STAGES = ('prepare', 'autoencoder', 'encode', 'diffusion')
# Learned by the stage evaluate, from public volumes; it knows what it was learned from.
MEASURING = 'checkpoints/measurement'
LEDGER = 'ledger-private.jsonl'
ADAPTED = 'checkpoints/adapt'
DRIFT = f'{ADAPTED}/drift.json'
# What a fine-tuning leaves beside its model: what it spent and what it published.
PUBLISHED = ('privacy.json', f'store/{LEDGER}', 'store/release-*.json')
# Sections of the config that it does not read.
AFTER_ADAPT = ('sample.', 'counterfactual.', 'evaluate.')


def share(base: pathlib.Path, arm: pathlib.Path) -> None:
  """Gives an arm that has not begun the store and the public networks of `base`."""
  for folder in ('store', *(f'checkpoints/{stage}' for stage in SHARED_STAGES)):
    give(base, arm, folder)
  give(base, arm, MEASURING)


def give(source: pathlib.Path, target: pathlib.Path, folder: str) -> None:
  """Copies a finished folder of one run to another that has none."""
  finished = folder != MEASURING or (source / folder / 'done.json').is_file()
  begun = (target / folder).exists() or (target / f'{folder}.new').exists()
  if begun or not finished:
    return
  part = target / f'{folder}.part'
  shutil.rmtree(part, ignore_errors=True)
  # Files of the store are never changed in place, so links to them are safe.
  shutil.copytree(
    source / folder,
    part,
    copy_function=_link if folder == 'store' else shutil.copy2,
    ignore=shutil.ignore_patterns('ledger-*'),
  )
  os.rename(part, target / folder)


def fine_tuning(overrides: Mapping[str, Any]) -> str:
  """What tells the fine-tunings of arms apart, as text."""
  read = {k: v for k, v in overrides.items() if not k.startswith(AFTER_ADAPT)}
  return str(sorted(read.items()))


def give_adapted(first: pathlib.Path, arm: pathlib.Path) -> None:
  """Gives an arm that has not begun the model of a finished one of equal fine-tuning.

  The model was released once, so the arm's ledger and statement are those of `first`.
  An arm whose own ledger holds anything else keeps it: a ledger only grows.
  """
  begun = (arm / ADAPTED).exists() or (arm / f'{ADAPTED}.new').exists()
  if begun or not (first / ADAPTED / 'done.json').is_file():
    return
  own, theirs = arm / 'store' / LEDGER, first / 'store' / LEDGER
  spent = theirs.read_bytes() if theirs.is_file() else None
  if own.is_file() and own.read_bytes() != spent:
    return
  for pattern in PUBLISHED:
    for path in first.glob(pattern):
      shutil.copy2(path, arm / path.relative_to(first))
  give(first, arm, ADAPTED)


def with_found_drift(
  overrides: Mapping[str, Any], drifts: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Overrides of an arm that takes the drift which an arm before it has searched for.

  What is found follows from the data and the pre-trained model, which arms share, and
  is the same for all methods. A private search is a release of its own in every arm.
  """
  value = drifts.get(overrides.get('adapt.drift.search') or '')
  if value is None:
    return overrides
  return {**overrides, 'adapt.drift.search': '', 'adapt.drift.value': value}


def keep_drift(
  arm: pathlib.Path, overrides: Mapping[str, Any], drifts: dict[str, Any]
) -> None:
  """Adds the drift that a finished arm has searched for without privacy."""
  search, path = overrides.get('adapt.drift.search'), arm / DRIFT
  is_open = overrides.get('adapt.privacy', True) is None
  if search and is_open and search not in drifts and path.is_file():
    value = json.loads(path.read_text())['value']
    drifts[search] = tuple(value) if isinstance(value, list) else value


def shared_ledger(root: pathlib.Path) -> pathlib.Path:
  """The ledger of all arms of a sweep on real patients.

  Raises:
    ValueError: if arms of an earlier version hold ledgers and there is no shared one.
  """
  path = root / LEDGER
  found = sorted(root.glob(f'*/store/{LEDGER}'))
  if found and not path.exists():
    raise ValueError(
      f'{len(found)} arms in {root} have ledgers of their own, but there is no {path}, '
      f'which would forget them. Copy the longest of them there: {found[-1]}, ...'
    )
  return path


def _link(source, target):
  try:
    os.link(source, target)
  except OSError:  # another disk, or one without links
    shutil.copy2(source, target)
