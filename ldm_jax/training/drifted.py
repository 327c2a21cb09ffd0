"""The drift that a config asks for: in training, in sampling, given or found.

`adapt.drift.search` finds the value at the start of the stage `adapt` and keeps it in
FOUND, so that resumed runs and everything that samples take the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ldm_jax.diffusion import drift as drifting
from ldm_jax.diffusion.schedules import Schedule
from ldm_jax.types import Array, Config

if TYPE_CHECKING:
  from ldm_jax.workfolder import WorkFolder

FOUND = ('checkpoints', 'adapt', 'drift.json')


def in_training(
  config: Config, work: WorkFolder, searched: bool = True
) -> drifting.Drift | None:
  """The `diffusion.drift.Drift` that `adapt` trains with, or None.

  With searched=False it is the config's own value where none has been found.

  Raises:
    ValueError: a drift that was to be searched for, and was not.
  """
  section = config.adapt.drift
  if not section.training:
    return None
  return drifting.of(at(section, _value(section, work, searched)))


def in_sampling(config: Config, work: WorkFolder) -> drifting.Drift | None:
  """The Drift that the adapted model is sampled with, or None.

  A model that was trained without it has no raw target to undo: `target` describes
  training alone. Random offsets have mean zero, so sampling knows `value` alone.
  """
  section = config.adapt.drift
  if not section.sampling:
    return None
  return drifting.of(at(section, _value(section, work), sampling=True))


def at(section: Config, value: Array, sampling: bool = False) -> drifting.Drift:
  """The Drift of `config.adapt.drift` with another value, which may be traced."""
  target = section.target if section.training or not sampling else 'shifted'
  random_std = 0.0 if sampling else section.random_std
  return drifting.Drift(value, section.variant, target, random_std)


def unread(config: Config) -> tuple[str, ...]:
  """Keys of `adapt` that its training does not read, as `workfolder.fingerprint` takes.

  A drift of sampling alone trains nothing anew: a private run would be spent again.
  """
  section = config.adapt.drift
  if section.search:
    return ()
  return ('-adapt.drift.sampling' if section.training else '-adapt.drift',)


def check(config: Config, schedule: Schedule) -> None:
  """Finds what the config's drift cannot do, before any stage runs.

  Raises:
    ValueError: of `diffusion.drift`, for a drift, schedule or solver.
  """
  section = config.adapt.drift
  drift = at(section, 1.0)
  if section.search or drifting.of(section.value) is not None:
    solver = config.sample.solver if section.sampling else None
    drifting.check_variant(drift, schedule, solver)


def _value(section, work, searched=True):
  """The value that was searched for, or the config's."""
  found = work.read_json(*FOUND) if section.search else None
  if not section.search or (found is None and not searched):
    return section.value
  if found is None:
    raise ValueError(
      f'adapt.drift.search is {section.search!r}, but {work.root} holds no drift yet. '
      'Run the stage that looks for it: --stages=adapt,...'
    )
  return found['value']
