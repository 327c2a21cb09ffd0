"""The stage `diffusion` in parts: the denoiser is learned from public latents."""

from collections.abc import Callable

import numpy as np
import optax
from jax.sharding import Mesh

from ldm_jax.data.batching import epoch_batch, weighted_batch
from ldm_jax.data.prefetch import Prefetcher
from ldm_jax.data.store.split import Split
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.pipeline import encode, private_pretraining
from ldm_jax.pipeline.run import Run
from ldm_jax.training import (
  checkpoint,
  denoising_loss,
  loop,
  networks,
  optimizers,
  state,
)
from ldm_jax.training.mesh import put_examples
from ldm_jax.training.packing import Packing
from ldm_jax.training.plain_step import plain_step
from ldm_jax.types import Config, PyTree


def check(run: Run) -> None:
  """Refuses a diffusion.init that is not there or does not fit, and such classes.

  Raises:
    ValueError: naming what is missing or where the shapes differ.
  """
  private_pretraining.check(run)
  init = run.config.diffusion.init
  if init:
    shapes, _ = networks.denoiser_shapes(run.config, run.schema)
    checkpoint.check_fits(init, shapes['unet'], 'diffusion.init')


def fit(run: Run, split: Split) -> PyTree:
  """Trains the denoiser on a public split; returns its parameters, averaged."""
  section, key = run.config.diffusion, run.key('diffusion')
  weights = private_pretraining.weights(run, split)
  latents, conditions = examples(run, split)
  params = run.initial_denoiser(latents.shape[1:])
  if section.init:
    unet = checkpoint.load_into(section.init, params['unet'], 'diffusion.init')
    params = {**params, 'unet': unet}
  flat = state.flatten(params)
  packing, optimizer, take = step(
    run.config, run.denoiser, run.schedule, flat, run.mesh
  )
  redraw = encode.redraw(run, split)

  def batch_of(number):
    size, seed = section.batch_size, run.config.seed
    if weights is None:
      chosen = epoch_batch(len(latents), size, seed, number, True)
    else:  # copies have the weight of their volume
      every = np.tile(weights, len(latents) // len(weights))
      chosen = weighted_batch(every, size, seed, number)
    z = redraw(latents[chosen], chosen, number)
    return put_examples(run.mesh, {'z': z, 'attributes': conditions[chosen]})

  with Prefetcher(batch_of, section.steps) as batch:
    final = loop.train(
      lambda current, number: take(current, {}, batch(number), key),
      state.create(packing.pack(flat), optimizer),
      section.steps,
      mesh=run.mesh,
      **run.loop_arguments('diffusion'),
    )
  return state.unflatten(packing.unpack(final.ema))


def step(
  config: Config,
  denoiser: ConditionalDenoiser,
  schedule: AnySchedule,
  flat: PyTree,
  mesh: Mesh,
) -> tuple[Packing, optax.GradientTransformation, Callable]:
  """How the stage trains.

  Args:
    config: of the run.
    denoiser, schedule: of the config.
    flat: flat parameters of the denoiser, or their shapes.
    mesh: devices.

  Returns:
    (packing of the parameters, optimiser, step of `plain_step`).
  """
  section, packing = config.diffusion, Packing(flat)
  optimizer = optimizers.public(
    section.optimizer, packing, section.learning_rate, section.steps
  )
  losses = denoising_loss.configured_losses(config, denoiser, schedule)
  packed = packing.losses(denoising_loss.example_losses(losses))
  return packing, optimizer, plain_step(packed, optimizer, mesh, section.ema_decay)


def examples(run: Run, split: Split) -> tuple[np.ndarray, np.ndarray]:
  """Normalised latents (n,...,c) and conditions (n,k) of a public split.

  With `augment.copies` = m, n is 1 + m times the number of volumes.
  """
  copies = run.config.augment.copies
  latents = encode.with_copies(
    run,
    split,
    copies,
    lambda indices, copy: run.public_volumes(split, indices, 'copy', copy, indices[0]),
  )
  return latents, np.tile(run.conditions(split), (1 + copies, 1))
