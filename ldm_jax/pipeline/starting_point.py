"""What the stage `adapt` begins from: versions of the scans, parameters, class samples.

All are settled before the first private step: the versions of a volume from this
volume and a seed, the parameters and the class samples from public data alone.
"""

import io

import jax
import numpy as np

from ldm_jax.atomic import write_bytes
from ldm_jax.data.batching import epoch_batch
from ldm_jax.pipeline import inputs
from ldm_jax.synthesis import generate
from ldm_jax.training import (
  denoising_loss,
  drift_setting,
  methods,
  networks,
  prior_preservation,
  state,
  unreachable,
)
from ldm_jax.training.mesh import make_mesh
from ldm_jax.workfolder import progress_bar

CLASS_SAMPLES = 'class_samples.npz'


def parameters(config, work, params):
  """Flat (trained, frozen) parameters that the method of `config.adapt` begins with.

  Args:
    params: nested, of the network as it is before.

  Raises:
    ValueError: if the network has not what the method trains.
  """
  section, like = config.adapt, None
  flat = state.flatten(params)
  if methods.METHODS[section.method].starts_at_class:
    like = class_token(config, work, params)
  new = methods.added(section, flat, inputs.key(config, 'adapters'), like)
  return methods.partition(section.method, {**flat, **new})


def class_token(config, work, params):
  """Mean (width,) of the tokens that the network makes of the public conditions.

  It stands for the class of what pre-training saw, as the word 'dog' does for a dog.
  """
  public = inputs.splits(config, work)['public']
  module = networks.denoiser(config, public.schema)
  conditions = inputs.conditions(config, public)
  describe = jax.jit(
    lambda params, c: module.apply({'params': params}, c, method='describe')[0]
  )
  context = describe(params, conditions)
  tokens, there = context if isinstance(context, tuple) else (context, None)
  if there is None:
    return tokens.mean((0, 1))
  return (tokens * there[..., None]).sum((0, 1)) / there.sum()


def class_samples(config, work, params, folder=None):
  """Latents that stand for the class, where the method's loss asks for them.

  They are drawn from the pre-trained network under conditions of the public cohort, or
  are latents of this cohort (adapt.prior.source): public either way. Drawn once a run
  and kept beside the checkpoint, so that a resumed run has the same.

  Args:
    params: nested, of the pre-trained network.
    folder: where they are kept; None keeps nothing.

  Returns:
    {'prior/z' (n,...,c) normalised, 'prior/conditions' (n,k)}, or {}.
  """
  section = config.adapt.prior
  if not methods.prior_weight(config.adapt):
    return {}
  path = folder and folder / CLASS_SAMPLES
  if path and path.is_file():
    with np.load(path) as kept:
      return {f'{prior_preservation.GROUP}/{name}': kept[name] for name in kept.files}
  public = inputs.splits(config, work)['public']
  everyone, latents = inputs.conditions(config, public), inputs.latents(work, public)
  rows = epoch_batch(len(everyone), section.num, config.seed, 0, wrap=True)
  z, conditions = latents[rows], everyone[rows]
  if section.source == 'generated':
    z = _generated(config, params, public.schema, z.shape[1:], conditions)
  found = {'z': z, 'conditions': conditions}
  if path:
    content = io.BytesIO()
    np.savez(content, **found)
    write_bytes(path, content.getbuffer())
  return {f'{prior_preservation.GROUP}/{name}': leaf for name, leaf in found.items()}


def _generated(config, params, schema, latent_shape, conditions):
  section, module = config.adapt.prior, networks.denoiser(config, schema)
  # Of several processes each draws all: the same numbers, and none waits for another.
  mesh = make_mesh(**config.mesh) if jax.process_count() == 1 else None
  sampler = generate.sampler_of(
    config, section, networks.applied(module), latent_shape, mesh=mesh
  )
  with progress_bar('class samples', len(conditions), 'latent') as advance:
    return generate.generate(
      sampler,
      lambda z: z,
      params,
      conditions,
      inputs.key(config, 'prior'),
      batch_size=section.batch_size,
      progress=advance,
    )


def leave_out_idle(config, work, split, latent_shape, trained, frozen):
  """Moves parameters that would gather nothing but noise from trained to frozen.

  Found once a run, from shapes alone (see training.unreachable), and kept beside the
  checkpoint, so that a resumed run trains the same parameters.
  """
  place = ('checkpoints', 'adapt', 'idle.json')
  names = work.read_json(*place)
  if names is None:
    probe = config.copy_and_resolve_references()
    # What stands for a dropped condition must be seen, however rarely it is needed.
    for section, key in (
      (probe.diffusion, 'drop_probability'),
      (probe.diffusion.text, 'missing_probability'),
    ):
      section[key] = 0.5 if 0 < section[key] < 1 else section[key]
    probe.adapt.pairs.use = False  # what reads them is no part of `trained` yet
    losses = denoising_loss.configured_losses(
      probe,
      networks.denoiser(probe, split.schema),
      networks.schedule(probe),
      drift_setting.in_training(config, work),
      adapting=True,
    )
    names = unreachable.idle(
      losses,
      trained,
      frozen,
      latent_shape,
      len(split.schema),
      inputs.conditions(config, split).shape[1],
    )
    work.write_json(names, *place)
    if names:
      work.log('adapt', not_trained=names, reason='no gradient reaches them')
      print(f'adapt: not trained, since no gradient reaches them: {", ".join(names)}')
  left = {path: leaf for path, leaf in trained.items() if path not in set(names)}
  return left, {**frozen, **{path: trained[path] for path in names}}
