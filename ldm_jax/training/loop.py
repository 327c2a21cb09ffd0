"""The training loop: resume, progress bar, logging, checks and checkpoints."""

import pathlib
import time
from collections.abc import Callable, Iterable

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ldm_jax import interruption, processes
from ldm_jax.training import checkpoint
from ldm_jax.training.mesh import on_host, put_by, state_shardings, stops
from ldm_jax.training.state import TrainState


def train(
  take_step: Callable[[TrainState, int], tuple[TrainState, dict]],
  state: TrainState,
  num_steps: int,
  *,
  mesh: Mesh,
  folder: pathlib.Path,
  log: Callable[..., None],
  title: str,
  log_every: int = 20,
  checkpoint_every: int = 100,
  inspect: Callable[[TrainState, dict], Iterable[str]] | None = None,
) -> TrainState:
  """Trains to `num_steps`, from the last checkpoint in `folder` if there is one.

  Args:
    take_step: (state, step) -> (state, metrics). It must depend on its arguments alone,
      so that a resumed run is bitwise equal to an uninterrupted one.
    state: the TrainState at step 0.
    num_steps: total number of steps.
    mesh: devices to place the state on.
    folder: the stage's folder for checkpoints.
    log: callable(step=..., **metrics), called every `log_every` steps.
    title: label of the progress bar.
    log_every: steps between log lines.
    checkpoint_every: steps between checkpoints.
    inspect: (state, metrics) -> alarms, texts that are shown and logged with each
      checkpoint; None for no inspection.

  Returns:
    The state after `num_steps`.

  Raises:
    ValueError: a metric or a parameter is not finite; the message names it and the
      step, and the last good checkpoint is kept.
    Interrupted: SIGTERM or Ctrl-C came; the state after the step is saved.
  """
  shardings = state_shardings(mesh, state)
  checkpoints = checkpoint.Checkpoints(folder)
  try:
    state = checkpoints.restore(put_by(state, shardings), shardings)
    start = int(state.step)
    bar = tqdm(
      total=num_steps,
      initial=start,
      desc=title,
      unit='step',
      mininterval=0.5,
      disable=not processes.is_first(),
    )
    agree = stops(mesh)
    began = time.monotonic()
    with bar, interruption.after_step(title) as signal_came:
      for step in range(start, num_steps):
        state, metrics = take_step(state, step)
        bar.update()
        is_last = step + 1 == num_steps
        if (step + 1) % log_every == 0 or is_last:
          metrics = {name: float(value) for name, value in metrics.items()}
          _guard(title, step, metrics)
          bar.set_postfix({name: f'{value:.4g}' for name, value in metrics.items()})
          rate = (step + 1 - start) / (time.monotonic() - began)
          log(step=step + 1, steps_per_second=round(rate, 4), **metrics)
        number = agree(signal_came())
        if (step + 1) % checkpoint_every == 0 or is_last or number:
          _guard_parameters(title, step, state)
          checkpoints.save(step + 1, state)
          for alarm in inspect(state, metrics) if inspect else ():
            bar.write(f'{title}: step {step + 1}: ALARM: {alarm}')
            log(step=step + 1, alarm=alarm)
        if number:
          raise interruption.Interrupted(
            number,
            f'{title}: interrupted, the state after step {step + 1} of {num_steps} is '
            'saved',
          )
    checkpoints.keep_latest()
    return state
  finally:
    checkpoints.close()


def last_state(
  state: TrainState, num_steps: int, *, mesh: Mesh, folder: pathlib.Path
) -> TrainState | None:
  """The state after the last step, or None where it was not reached.

  Args:
    state: the TrainState at step 0.
    num_steps: total number of steps.
    mesh: devices to place the state on.
    folder: the stage's folder for checkpoints.

  Raises:
    ValueError: the state is damaged.
  """
  shardings = state_shardings(mesh, state)
  checkpoints = checkpoint.Checkpoints(folder)
  try:
    if checkpoints.latest() != num_steps:
      return None
    return checkpoints.read(num_steps, put_by(state, shardings), shardings)
  finally:
    checkpoints.close()


def _guard(title, step, metrics):
  for name, value in metrics.items():
    if not np.isfinite(value):
      raise ValueError(
        f'{title}: {name} became {value} at step {step + 1}. The last checkpoint '
        'is kept; lower the learning rate of this stage and run again.'
      )


def _guard_parameters(title, step, state):
  for path, leaf in state.trained.items():
    if not np.isfinite(on_host(leaf)).all():
      raise ValueError(
        f'{title}: parameter {path} is not finite at step {step + 1}. The last '
        'checkpoint is kept; lower the learning rate of this stage and run again.'
      )
