"""How the stage `adapt` fits the private cohort: plainly or by DP-SGD."""

import functools

import jax

from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.store import visit_pairs
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.pipeline import inputs, private_budget, private_releases
from ldm_jax.training import (
  denoising_loss,
  loop,
  methods,
  networks,
  pair_examples,
  patients,
  private_run,
  private_step,
  state,
)
from ldm_jax.training.mesh import make_mesh, put_examples
from ldm_jax.training.plain_step import plain_step


def fit_plainly(config, work, split, latents, losses, trained, frozen):
  """Fine-tunes without privacy, patient by patient; returns the final TrainState.

  The ledger learns of it as a release without noise, so that no later statement on
  these patients can claim a finite epsilon.
  """
  section, mesh = config.adapt, make_mesh(**config.mesh)
  key = inputs.key(config, 'adapt')
  private_budget.record_unprotected(config, work)
  examples = patient_examples(config, split, latents)
  optimizer = private_step.optimizer(section)
  step = plain_step(
    denoising_loss.patient_example_losses(methods.patient_loss(section, losses, 1)),
    optimizer,
    mesh,
    section.ema_decay,
  )

  def take_step(current, number):
    chosen = epoch_batch(
      split.num_patients, section.batch_size, config.seed + section.seed, number, True
    )
    batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
    return step(current, frozen, put_examples(mesh, batch), key)

  return loop.train(
    take_step,
    state.create(trained, optimizer, section.ema_decay),
    section.steps,
    mesh=mesh,
    **_marked_internal(inputs.loop_arguments(config, work, 'adapt'), None),
  )


def fit_privately(config, work, split, latents, losses, trained, frozen):
  """Fine-tunes by DP-SGD under the ledger; returns the final TrainState."""
  section, privacy, mesh = config.adapt, config.adapt.privacy, make_mesh(**config.mesh)
  key, secret = inputs.key(config, 'adapt'), private_budget.secret_key(config, work)
  scheme = private_budget.plan_release(config, work, split.num_patients)
  book = private_budget.private_ledger(config, work)
  private_releases.publish(
    config, work, split, book, private_budget.run_name(work), secret
  )
  optimizer = private_step.optimizer(section)
  loss = methods.patient_loss(section, losses, privacy.noise_multiplicity)
  examples = patient_examples(config, split, latents)
  step = private_step.private_step(
    loss,
    optimizer,
    mesh,
    section.ema_decay,
    scheme,
    microbatch=privacy.microbatch,
    method=privacy.gradients,
  )
  return private_run.take_steps(
    step,
    examples,
    split.patient_names,
    privacy.chunk_size,
    state.create(trained, optimizer, section.ema_decay),
    frozen,
    key=key,
    secret_key=secret,
    mesh=mesh,
    observe=private_run.internal_loss(loss, examples) if privacy.log_internal else None,
    **_marked_internal(inputs.loop_arguments(config, work, 'adapt'), privacy),
  )


def _marked_internal(arguments, privacy):
  """Marks log lines that hold figures of private data without noise."""
  if privacy is not None and not privacy.log_internal:
    return arguments
  return {**arguments, 'log': functools.partial(arguments['log'], internal=True)}


def patient_examples(config, split, latents):
  """What a step draws from: `patients.patient_arrays` of scans, or of their pairs.

  Args:
    config: of the run.
    split: the cohort.
    latents: (v n,...,c), v versions of its entries.

  Raises:
    ValueError: pairs are asked for and there are none.
  """
  section, conditions = config.adapt.pairs, inputs.conditions(config, split)
  if not section.use:
    return patients.patient_arrays(split, latents, conditions)
  limits = section.min_years, section.max_years, section.adjacent
  found = visit_pairs.entry_pairs(split, *limits)
  ways = section.both_directions, section.singles
  return patients.patient_arrays(
    *pair_examples.examples(split, latents, conditions, found, *ways)
  )


def pair_parameters(config, schema, latent_shape):
  """Flat parameters that read pairs, which every method trains; {} without pairs."""
  if not config.adapt.pairs.use:
    return {}
  return earlier_visit.added(networks.denoiser(config, schema), latent_shape)
