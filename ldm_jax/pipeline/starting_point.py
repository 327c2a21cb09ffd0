"""What the stage `adapt` begins from: losses, parameters, class samples.

All are settled before the first private step, from public data and from shapes alone.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from ldm_jax import atomic, processes
from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.store.split import Split
from ldm_jax.diffusion.drift import Drift
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.pipeline.run import Run
from ldm_jax.synthesis import generate
from ldm_jax.training import (
  checkpoint,
  denoising_loss,
  drift_setting,
  methods,
  networks,
  prior_preservation,
  state,
  unreachable,
)
from ldm_jax.training.mesh import put_state
from ldm_jax.types import PyTree, Shape
from ldm_jax.workfolder import progress_bar

CLASS_SAMPLES = 'class_samples.npz'


@dataclasses.dataclass(frozen=True)
class Start:
  """Where fine-tuning starts.

  Attributes:
    losses: of `denoising_loss.configured_losses`.
    trained: flat parameters that the method trains.
    frozen: flat parameters that it does not, on the devices.
    class_samples: latents of the class for the loss, {} if it asks for none.
    base: flat parameters that later stages load from the stage `diffusion`.
  """

  losses: Any
  trained: dict[str, Any]
  frozen: dict[str, Any]
  class_samples: dict[str, Any]
  base: dict[str, Any]


def find(run: Run, latent_shape: Shape, drift: Drift | None) -> Start:
  """The start of the stage `adapt`, for latents of the shape (...,c)."""
  losses, params = losses_and_params(run, latent_shape, drift)
  trained, frozen = parameters(run, params)
  if run.config.adapt.privacy is not None:
    trained, frozen = leave_out_idle(run, latent_shape, trained, frozen)
  samples = class_samples(run, params, run.work.checkpoints('adapt'))
  return Start(
    losses,
    trained | pair_parameters(run, latent_shape),
    put_state(run.mesh, frozen),
    put_state(run.mesh, samples),
    state.flatten(params) if run.config.adapt.init == 'diffusion' else {},
  )


def losses_and_params(
  run: Run, latent_shape: Shape, drift: Drift | None
) -> tuple[Any, PyTree]:
  """(losses of fine-tuning, nested parameters of the network before it)."""
  losses = denoising_loss.configured_losses(
    run.config, run.denoiser, run.schedule, drift, adapting=True
  )
  if run.config.adapt.init != 'diffusion':
    return losses, run.initial_denoiser(latent_shape)
  run.require('diffusion')
  return losses, checkpoint.load_params(run.work.checkpoints('diffusion'))


def parameters(run: Run, params: PyTree) -> tuple[dict, dict]:
  """Flat (trained, frozen) parameters that the method of `config.adapt` begins with.

  Args:
    run: of the config.
    params: nested, of the network as it is before.

  Raises:
    ValueError: the network lacks what the method trains.
  """
  section, like = run.config.adapt, None
  flat = state.flatten(params)
  if methods.METHODS[section.method].starts_at_class:
    like = class_token(run, params)
  new = methods.added(section, flat, run.key('adapters'), like)
  return methods.partition(section.method, {**flat, **new})


def pair_parameters(run: Run, latent_shape: Shape) -> dict[str, Any]:
  """Flat parameters that read pairs, which every method trains; {} without pairs."""
  if not run.config.adapt.pairs.use:
    return {}
  return earlier_visit.added(run.denoiser, latent_shape)


def class_token(run: Run, params: PyTree) -> jax.Array:
  """Mean (width,) of the tokens that the network makes of the public conditions.

  It stands for the class of what pre-training saw, as the word 'dog' does for a dog.
  """
  conditions = run.conditions(run.splits['public'])
  conditions = conditions[:, : run.denoiser.num_conditions]  # no label map
  describe = jax.jit(
    lambda params, c: run.denoiser.apply({'params': params}, c, method='describe')[0]
  )
  context = describe(params, conditions)
  tokens, there = context if isinstance(context, tuple) else (context, None)
  if there is None:
    return tokens.mean((0, 1))
  return (tokens * there[..., None]).sum((0, 1)) / there.sum()


def class_samples(
  run: Run, params: PyTree, folder: pathlib.Path | None = None
) -> dict[str, Any]:
  """Latents that stand for the class, where the method's loss asks for them.

  They are drawn from the pre-trained network under conditions of the public cohort, or
  are latents of this cohort (adapt.prior.source): public either way. They are drawn
  once a run and stored beside the checkpoint, so that a resumed run has the same.

  Args:
    run: of the config.
    params: nested, of the pre-trained network.
    folder: where they are stored; None stores nothing.

  Returns:
    {'prior/z' (n,...,c) normalised, 'prior/conditions' (n,k)}, or {}.
  """
  if not methods.prior_weight(run.config.adapt):
    return {}
  path = folder and folder / CLASS_SAMPLES
  if path:
    processes.first(lambda: path.is_file() or _write_class_samples(run, params, path))
    with np.load(path) as kept:
      return {f'{prior_preservation.GROUP}/{name}': kept[name] for name in kept.files}
  found = _class_samples(run, params)
  return {f'{prior_preservation.GROUP}/{name}': leaf for name, leaf in found.items()}


def _write_class_samples(run, params, path):
  atomic.write_arrays(path, **_class_samples(run, params))


def _class_samples(run, params):
  config, section = run.config, run.config.adapt.prior
  public = run.splits['public']
  everyone, latents = run.conditions(public), run.latents(public)
  rows = epoch_batch(len(everyone), section.num, config.seed, 0, wrap=True)
  z, conditions = latents[rows], everyone[rows]
  if section.source == 'generated':
    z = _generated(run, params, z.shape[1:], conditions)
  return {'z': z, 'conditions': conditions}


def _generated(run, params, latent_shape, conditions):
  section = run.config.adapt.prior
  sampler = generate.sampler_of(
    run.config,
    section,
    networks.applied(run.denoiser),
    latent_shape,
    mesh=run.mesh,
  )
  with progress_bar('class samples', len(conditions), 'latent') as advance:
    return generate.generate(
      sampler,
      lambda z: z,
      params,
      conditions,
      run.key('prior'),
      batch_size=section.batch_size,
      progress=advance,
    )


def leave_out_idle(
  run: Run, latent_shape: Shape, trained: dict, frozen: dict
) -> tuple[dict, dict]:
  """Moves parameters that would gather nothing but noise from trained to frozen.

  They are found once a run, from shapes alone (see training.unreachable), and stored
  beside the checkpoint, so that a resumed run trains the same parameters.
  """
  place, work = ('checkpoints', 'adapt', 'idle.json'), run.work

  def find_once():
    names = work.read_json(*place)
    if names is None:
      names = idle(run, run.splits['private'], latent_shape, trained, frozen)
      work.write_json(names, *place)
      if names:
        work.log('adapt', not_trained=names, reason='no gradient reaches them')
        told = ', '.join(names)
        print(f'adapt: not trained, since no gradient reaches them: {told}')
    return names

  return without(processes.first(find_once), trained, frozen)


def without(names: list[str], trained: dict, frozen: dict) -> tuple[dict, dict]:
  """(trained, frozen) with the parameters of these paths moved to the frozen ones."""
  left = {path: leaf for path, leaf in trained.items() if path not in set(names)}
  return left, {**frozen, **{path: trained[path] for path in names}}


def idle(
  run: Run,
  split: Split,
  latent_shape: Shape,
  trained: dict,
  frozen: dict,
  searched: bool = True,
) -> list[str]:
  """Paths of `trained` that no gradient reaches, from shapes alone.

  Args:
    run: of the config.
    split: a cohort, for the number of conditions.
    latent_shape: (...,c) of one latent.
    trained, frozen: flat parameters.
    searched: as in `drift_setting.in_training`.

  Raises:
    ValueError: no gradient reaches any of them.
  """
  probe = run.config.copy_and_resolve_references()
  # What stands for a dropped condition must be seen, however rarely it is needed.
  for section, key in (
    (probe.diffusion, 'drop_probability'),
    (probe.diffusion.text, 'missing_probability'),
  ):
    section[key] = 0.5 if 0 < section[key] < 1 else section[key]
  probe.adapt.pairs.use = False  # what reads pairs is not part of `trained` yet
  losses = denoising_loss.configured_losses(
    probe,
    networks.denoiser(probe, run.schema),
    networks.schedule(probe),
    drift_setting.in_training(run.config, run.work, searched),
    adapting=True,
  )
  num_conditions = run.conditions(split).shape[1]
  return unreachable.idle(
    losses, trained, frozen, latent_shape, len(run.schema), num_conditions
  )
