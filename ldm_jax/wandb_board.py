"""Curves on Weights & Biases, beside those of TensorBoard, for who asks for them.

What is sent leaves the machine: numbers of public training and of steps with noise. Of
lines that are marked internal nothing is sent, and neither config, code, command line,
names of the machine nor printed text.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import secrets
from typing import Any

from ldm_jax import atomic

KEY = 'run.wandb'
# The run's name there, kept so that a command that resumes continues its curves.
NOTE = 'wandb.id'
# Settings of wandb that keep it from looking at the machine.
SILENT = {
  **dict.fromkeys(('disable_git', 'disable_code', 'x_disable_meta'), True),
  **dict.fromkeys(('x_disable_stats', 'x_disable_machine_info'), True),
  **{'save_code': False, 'x_save_requirements': False, 'console': 'off'},
  **{'host': 'not-told', 'program': 'ldm-jax', 'silent': True},
}
_OPEN: dict[pathlib.Path, Board] = {}


def check(project: str) -> None:
  """Refuses a project where the package is missing.

  Raises:
    ValueError: wandb is not installed.
  """
  if project and importlib.util.find_spec('wandb') is None:
    raise ValueError(
      f'config.{KEY} is {project!r}, but wandb is not installed. Run pip install '
      f"'ldm-jax[wandb]', or set --config.{KEY}= for TensorBoard alone."
    )


def board(project: str, root: pathlib.Path) -> Board:
  """The board of a work folder; begun at the first call.

  Raises:
    ValueError: it cannot begin, for example without a login.
  """
  root = pathlib.Path(root).resolve()
  if root not in _OPEN:
    _OPEN[root] = Board(project, root)
  return _OPEN[root]


class Board:
  """A run of W&B: the curves of all stages of one work folder."""

  def __init__(self, project: str, root: pathlib.Path):
    check(project)
    wandb = importlib.import_module('wandb')
    note = root / 'store' / NOTE
    if not note.is_file():
      atomic.write_text(note, secrets.token_hex(8))
    try:
      self._run = wandb.init(
        project=project,
        id=note.read_text(),
        resume='allow',
        dir=str(root),
        settings=wandb.Settings(**SILENT),
      )
    except Exception as error:  # wandb has many kinds, of which few are public
      raise ValueError(
        f'Weights & Biases did not start ({type(error).__name__}: {error}). Run wandb '
        f'login, set WANDB_MODE=offline, or --config.{KEY}= for TensorBoard alone.'
      ) from error
    self._stages: set[str] = set()

  def add(self, stage: str, event: dict[str, Any]) -> None:
    """Sends the numbers of one line of the log, unless it is marked internal."""
    if event.get('internal') or 'step' not in event:
      return
    if stage not in self._stages:
      self._stages.add(stage)
      self._run.define_metric(f'{stage}/*', step_metric=f'{stage}/step')
    numbers = {
      f'{stage}/{name}': value
      for name, value in event.items()
      if isinstance(value, int | float) and not isinstance(value, bool)
    }
    self._run.log(numbers)
