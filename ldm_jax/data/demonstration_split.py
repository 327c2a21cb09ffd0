"""Detects a public cohort that is drawn at random from the private patients' folder.

Such a split demonstrates the method but does not protect the patients who become
public: the autoencoder and the denoiser train on them without clipping and noise. It is
derived from the sections of `config.data`, so that no flag hides it.
"""

from __future__ import annotations

import pathlib
from typing import Any

from ldm_jax.data.cohorts_of_config import PUBLISHED

# Cohorts that train without protection.
UNPROTECTED = ('public', 'measuring')


def share(data: Any) -> float | None:
  """Share of the private patients' folder that trains unprotected; None if none does.

  Patients whom a table or the data set itself names public do not count, nor do those
  of a phantom, who are no people.

  Args:
    data: `config.data`.
  """
  if not data.private.layout or data.private.layout.startswith('phantom_'):
    return None
  place = _place(data.private)
  parts = {
    _part(data[name].part)
    for name in UNPROTECTED
    if data[name].layout and _place(data[name]) == place and _part(data[name].part)
  }
  if not parts:
    return None
  return float(sum(data.split.get(part, 0.0) for part in parts))


def warning(data: Any) -> str:
  """The warning on every page of such a run; '' for any other run."""
  found = share(data)
  return '' if found is None else sentence(found)


def sentence(unprotected: float) -> str:
  """The warning, for the share that trains unprotected."""
  return (
    f'Demonstration only: {100 * unprotected:.0f} % of these patients train without '
    'protection. One folder is split by lot, and the patients whom the lot calls '
    'public train the autoencoder and the denoiser without any noise. Share nothing '
    'of this run, neither model nor samples, unless all of these scans were public '
    'before.'
  )


def _place(section: Any) -> pathlib.Path:
  """The folder of the scans, resolved; two layouts may read the same one."""
  return pathlib.Path(section.root).expanduser().resolve()


def _part(part: str) -> str:
  """The share of data.split within a part; '' where the part is named, not drawn."""
  if not part.startswith(PUBLISHED):
    return part
  return part.removeprefix(PUBLISHED).partition('/')[2]
