"""The adapted network between stages: what moved is kept, all else lies in its base.

A small method leaves a small checkpoint: its adapters, say, and not the network a
second time. The whole network is put together where it is used.
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
  """Writes what the base does not hold, once for each average.

  Args:
    folder: of the stage; the first average lies in `params`, any other in
      `ema_<decay>/params`.
    averages: flat dicts of trained parameters, one a decay.
    decays: of these averages.
    frozen: flat dict of the parameters that did not move.
    base: paths of the parameters that later stages find elsewhere.
  """
  kept = {path: leaf for path, leaf in frozen.items() if path not in base}
  # The first last: `params` says that all is there.
  for number, average in reversed(list(enumerate(averages))):
    place = _place(folder, decays, number)
    checkpoint.save_params(place, unflatten({**kept, **average}))


def load(
  folder: pathlib.Path, decays: Sequence[float], decay: float | None, base: PyTree
) -> PyTree:
  """Nested parameters of the whole network, adapters merged into its kernels.

  Args:
    folder: of the stage.
    decays: config.adapt.ema_decay of the run.
    decay: which of them; None for the first.
    base: nested parameters that the stage began from, {} if it holds all itself.

  Raises:
    ValueError: if the stage has not been run, or kept no average of this decay.
  """
  number = 0 if decay is None else list(decays).index(decay)
  moved = checkpoint.load_params(_place(folder, decays, number))
  return unflatten(adapters.merge({**flatten(base), **flatten(moved)}))


def _place(folder, decays, number):
  return folder if number == 0 else folder / f'ema_{decays[number]:g}'
