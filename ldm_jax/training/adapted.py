"""Saving and loading an adapted network: only the trained parameters are stored.

A small method thus has a small checkpoint, for instance its adapters instead of a
second copy of the network. Loading merges it with the network that it started from.
"""

import pathlib
from collections.abc import Container, Sequence

from ldm_jax.models import adapters
from ldm_jax.training import checkpoint
from ldm_jax.training.state import flatten, unflatten
from ldm_jax.types import PyTree


def save(
  folder: pathlib.Path,
  averages: Sequence[PyTree],
  decays: Sequence[float],
  frozen: PyTree,
  base: Container[str],
) -> None:
  """Writes the parameters that `base` does not contain, once for each average.

  Args:
    folder: of the stage; the first average is written to `params`, any other one to
      `ema_<decay>/params`.
    averages: flat dicts of trained parameters, one per decay.
    decays: of these averages.
    frozen: flat dict of the parameters that were not trained.
    base: paths of the parameters that later stages load from elsewhere.
  """
  kept = {path: leaf for path, leaf in frozen.items() if path not in base}
  # The first average is written last: `params` marks the stage as complete.
  for number, average in reversed(list(enumerate(averages))):
    place = _place(folder, decays, number)
    checkpoint.save_params(place, unflatten({**kept, **average}))


def load(
  folder: pathlib.Path, decays: Sequence[float], decay: float | None, base: PyTree
) -> PyTree:
  """Nested parameters of the whole network, with adapters merged into its kernels.

  Args:
    folder: of the stage.
    decays: config.adapt.ema_decay of the run.
    decay: which of them; None for the first.
    base: nested parameters that the stage started from, {} if its own checkpoint is
      complete.

  Raises:
    ValueError: the stage has not been run, or has no average of this decay.
  """
  number = 0 if decay is None else list(decays).index(decay)
  moved = checkpoint.load_params(_place(folder, decays, number))
  return unflatten(adapters.merge({**flatten(base), **flatten(moved)}))


def _place(folder, decays, number):
  return folder if number == 0 else folder / f'ema_{decays[number]:g}'
