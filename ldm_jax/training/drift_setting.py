"""The drift that a config sets, for training and for sampling, given or searched for.

With `adapt.drift.search`, the stage `adapt` searches for the value at its start and
stores it in FOUND, so that resumed runs and sampling use the same value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ldm_jax.diffusion import drift as drifts
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.types import Array, Config

if TYPE_CHECKING:
  from ldm_jax.workfolder import WorkFolder

FOUND = ('checkpoints', 'adapt', 'drift.json')


def in_training(
  config: Config, work: WorkFolder, searched: bool = True
) -> drifts.Drift | None:
  """The `diffusion.drift.Drift` that `adapt` trains with, or None.

  With searched=False, the value of the config is used where no search has been made.

  Raises:
    ValueError: the config asks for a search that has not been made.
  """
  section = config.adapt.drift
  if not section.training:
    return None
  return drifts.of(at(section, _value(section, work, searched)))


def in_sampling(config: Config, work: WorkFolder) -> drifts.Drift | None:
  """The Drift that the adapted model is sampled with, or None.

  If training used no drift, there is no raw target to undo: `target` applies to
  training only. Random offsets have mean zero, so sampling uses `value` alone.
  """
  section = config.adapt.drift
  if not section.sampling:
    return None
  return drifts.of(at(section, _value(section, work), sampling=True))


def at(section: Config, value: Array, sampling: bool = False) -> drifts.Drift:
  """The Drift of `config.adapt.drift` with another value, which may be traced."""
  target = section.target if section.training or not sampling else 'shifted'
  random_std = 0.0 if sampling else section.random_std
  return drifts.Drift(value, section.variant, target, random_std)


def unread(config: Config) -> tuple[str, ...]:
  """Keys of `adapt` that training does not read, as `workfolder.fingerprint` takes.

  A drift of sampling alone does not change training, so changing it must not repeat a
  private run.
  """
  section = config.adapt.drift
  if section.search:
    return ()
  return ('-adapt.drift.sampling' if section.training else '-adapt.drift',)


def check(config: Config, schedule: AnySchedule) -> None:
  """Checks that the config's drift is possible, before any stage runs.

  Raises:
    ValueError: from `diffusion.drift`, for the drift, schedule or solver.
  """
  section = config.adapt.drift
  drift = at(section, 1.0)
  if section.search or drifts.of(section.value) is not None:
    solver = config.sample.solver if section.sampling else None
    drifts.check_variant(drift, schedule, solver)


def _value(section, work, searched=True):
  """The value that was found by the search, or the config's."""
  found = work.read_json(*FOUND) if section.search else None
  if not section.search or (found is None and not searched):
    return section.value
  if found is None:
    raise ValueError(
      f'adapt.drift.search is {section.search!r}, but {work.root} holds no drift yet. '
      'Run the stage that searches for it: --stages=adapt,...'
    )
  return found['value']
