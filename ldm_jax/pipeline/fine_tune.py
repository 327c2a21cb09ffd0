"""The steps of the stage `adapt`: the private cohort is fitted plainly or by DP-SGD.

`private_latents` come from the store, `starting_point` and `private_budget` say where
training begins and what it may spend; `fit` trains and `save` writes the model.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ldm_jax import processes
from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.preprocessing.augment import augment
from ldm_jax.data.store import visit_pairs
from ldm_jax.data.store.split import Split
from ldm_jax.pipeline import encode, private_ledger, private_releases
from ldm_jax.pipeline.private_budget import Plan
from ldm_jax.pipeline.run import Run
from ldm_jax.pipeline.starting_point import Start
from ldm_jax.privacy import mechanisms
from ldm_jax.training import (
  checkpoint,
  denoising_loss,
  loop,
  methods,
  pair_examples,
  patients,
  private_run,
  private_step,
  state,
)
from ldm_jax.training.mesh import put_examples
from ldm_jax.training.plain_step import plain_step
from ldm_jax.types import Config


def private_latents(run: Run, split: Split) -> np.ndarray:
  """Latents (v n,...,c) of the private volumes and of their transformed versions.

  Version 0 is the volume, the others are as `adapt.augment` says. What is drawn for a
  volume depends on that volume (of pairs: on its patient's name) and the seed alone:
  another patient, added or removed, changes no version of this one's, which the
  sensitivity of the step relies on.
  """
  section = run.config.adapt.augment
  options = {key: value for key, value in section.items() if key != 'multiplicity'}
  seed = run.config.seed + run.config.adapt.seed
  # Two scans of a pair must move alike, so all scans of a patient do.
  names = split.patients if run.config.adapt.pairs.use else split.keys

  def transformed(index, volume, copy):
    words = hashlib.sha256(f'{seed}:{names[index]}:{copy}'.encode()).digest()
    draws = np.random.default_rng(int.from_bytes(words))
    return augment(volume[None], draws, **options)[0]

  def volumes_of(indices, copy):
    pairs = zip(indices, run.inputs(split, indices), strict=True)
    return np.stack([transformed(index, volume, copy) for index, volume in pairs])

  return encode.with_copies(run, split, section.multiplicity - 1, volumes_of)


def patient_examples(
  run: Run, split: Split, latents: np.ndarray
) -> dict[str, np.ndarray]:
  """What a step draws from: `patients.patient_arrays` of scans, or of their pairs.

  Args:
    run: of the config.
    split: the cohort.
    latents: (v n,...,c), v versions of its entries.

  Raises:
    ValueError: pairs are asked for and there are none.
  """
  section, conditions = run.config.adapt.pairs, run.conditions(split)
  if not section.use:
    return patients.patient_arrays(split, latents, conditions)
  limits = section.min_years, section.max_years, section.adjacent
  found = visit_pairs.entry_pairs(split, *limits)
  ways = section.both_directions, section.singles
  return patients.patient_arrays(
    *pair_examples.examples(split, latents, conditions, found, *ways)
  )


def fit(
  run: Run, split: Split, latents: np.ndarray, start: Start, plan: Plan | None
) -> state.TrainState:
  """Trains on the private cohort; returns the final TrainState.

  Args:
    run: the stage `adapt` has begun, its release is in the ledger.
    split: the private cohort.
    latents: of `private_latents`.
    start: of `starting_point.find`.
    plan: of `private_budget.plan`; None fits without privacy.
  """
  examples = patient_examples(run, split, latents)
  if plan is None:
    return _fit_plainly(run, examples, start)
  processes.first(lambda: private_releases.publish(run, run.name, plan.secret_key))
  return _fit_privately(run, split.patient_names, examples, start, plan)


def taken(run: Run, start: Start) -> state.TrainState | None:
  """The last state of a private run that is over, so that its model is written again.

  Its noise key is destroyed, and no step is taken.

  Returns:
    The final TrainState, or None where steps are left or the run is not private.

  Raises:
    ValueError: the state is damaged.
  """
  section, folder = run.config.adapt, run.work.checkpoints('adapt')

  def over():
    if section.privacy is None or (folder / private_run.KEY_FILE).exists():
      return None
    # The runs of a private choice share a release, which says nothing of this one, and
    # looking for a state would make its folder, by which a run is known to have begun.
    if not (folder / 'state').is_dir():
      return None
    return private_ledger.release_of(run.ledger, run.name)

  recorded = processes.first(over)
  if recorded is None:
    return None
  num_patients = run.prepared['private'].num_patients
  scheme = private_run.configured(section.privacy, num_patients, section.steps)
  scheme = private_run.as_recorded(scheme, recorded)
  optimizer = private_step.optimizer(section)
  begun = state.create(start.trained, optimizer, section.ema_decay)
  begun = private_step.begin(begun, scheme)
  return loop.last_state(begun, section.steps, mesh=run.mesh, folder=folder)


def save(run: Run, final: state.TrainState, start: Start) -> None:
  """Writes the parameters that the stage `diffusion` does not have already."""
  checkpoint.save_adapted(
    run.work.checkpoints('adapt'),
    final.ema,
    run.config.adapt.ema_decay,
    start.frozen,
    start.base,
  )


def private_step_of(
  config: Config,
  losses: Callable[..., jax.Array],
  mesh: Mesh,
  scheme: mechanisms.Poisson,
) -> tuple[Callable, optax.GradientTransformation, private_step.PrivateStep]:
  """How `adapt` trains under privacy.

  Args:
    config: of the run.
    losses: of `denoising_loss.configured_losses`.
    mesh: devices.
    scheme: who is drawn, how much noise is added.

  Returns:
    (loss of a patient, optimiser, step).
  """
  section, privacy = config.adapt, config.adapt.privacy
  optimizer = private_step.optimizer(section)
  loss = methods.patient_loss(section, losses, privacy.noise_multiplicity)
  step = private_step.private_step(
    loss,
    optimizer,
    mesh,
    section.ema_decay,
    scheme,
    microbatch=privacy.microbatch,
    method=privacy.gradients,
  )
  return loss, optimizer, step


def _fit_plainly(run, examples, start):
  """Fine-tunes without privacy, patient by patient."""
  section, key = run.config.adapt, run.key('adapt')
  optimizer = private_step.optimizer(section)
  loss = methods.patient_loss(section, start.losses, 1)
  step = plain_step(
    denoising_loss.patient_example_losses(loss), optimizer, run.mesh, section.ema_decay
  )
  frozen, seed = {**start.frozen, **start.class_samples}, run.config.seed + section.seed

  def take_step(current, number):
    num_patients = len(examples['present'])
    chosen = epoch_batch(num_patients, section.batch_size, seed, number, True)
    batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
    return step(current, frozen, put_examples(run.mesh, batch), key)

  return loop.train(
    take_step,
    state.create(start.trained, optimizer, section.ema_decay),
    section.steps,
    mesh=run.mesh,
    **_marked_internal(run.loop_arguments('adapt')),
  )


def _fit_privately(run, names, examples, start, plan):
  """Fine-tunes by DP-SGD; nothing of a patient leaves but by the noisy sums."""
  section, privacy = run.config.adapt, run.config.adapt.privacy
  loss, optimizer, step = private_step_of(
    run.config, start.losses, run.mesh, plan.scheme
  )
  # One line at the end: times between lines would tell how many patients a step drew.
  arguments, observe = {**run.loop_arguments('adapt'), 'log_every': section.steps}, None
  if privacy.log_internal:
    arguments = _marked_internal(run.loop_arguments('adapt'))
    observe = private_run.internal_loss(loss, examples)
  return private_run.take_steps(
    step,
    examples,
    names,
    privacy.chunk_size,
    state.create(start.trained, optimizer, section.ema_decay),
    {**start.frozen, **start.class_samples},
    key=run.key('adapt'),
    secret_key=plan.secret_key,
    mesh=run.mesh,
    observe=observe,
    **arguments,
  )


def _marked_internal(arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Marks log lines as internal: their figures show private data without noise."""
  return {**arguments, 'log': functools.partial(arguments['log'], internal=True)}
