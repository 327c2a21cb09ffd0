"""The sections `run`, `mesh` and `doctor`: how, not what, a command computes."""

from typing import Any

from ldm_jax import wandb_board
from ldm_jax.config.parsing import require
from ldm_jax.types import Config


def section() -> dict[str, Any]:
  """The keys of `run`: logging, checkpoints, threads."""
  return {
    'log_every': 20,
    'checkpoint_every': 200,
    # Threads of prepare; 0 is two per core.
    'workers': 0,
    # Project of Weights & Biases that also gets the curves of TensorBoard, but for
    # internal ones (extra 'wandb'). '' sends nothing.
    'wandb': '',
  }


def mesh() -> dict[str, Any]:
  """The keys of `mesh`: how devices share the work."""
  return {
    # -1: all devices of all processes; a number counts those of each process. fsdp > 1
    # shards parameters and optimiser state at rest.
    'data': -1,
    'fsdp': 1,
  }


def doctor() -> dict[str, Any]:
  """The keys of `doctor`: how much of the data it looks at."""
  return {
    # Scans read of a cohort, evenly chosen: minutes where all of them take hours. 0
    # reads all. The table is always seen whole.
    'max_records': 1000,
    # Of the box that is proposed; 0 takes as many as preprocess.shape has.
    'max_voxels': 0,
    # A slice that need not be there, such as v5p-128, v5e:4x4 or h100x8, for which the
    # train steps are compiled, to see whether they fit and what they take; '' for none.
    'topology': '',
    # The arguments of the command line that is examined, filled in by it.
    'command': (),
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `config.run` and `config.doctor`."""
  wandb_board.check(config.run.wandb)
  value = config.run.workers
  require(value >= 0, 'run.workers', value, 'a whole number from 0 up')
  value = config.doctor.max_records
  require(value >= 0, 'doctor.max_records', value, 'a whole number, 0 for all scans')
  value = config.doctor.max_voxels
  require(value >= 0, 'doctor.max_voxels', value, 'a whole number from 0 up')
