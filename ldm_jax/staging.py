"""What all stages share: their order, their cohorts, keys, latents and networks."""

import functools
import zlib

import jax
import numpy as np

from ldm_jax import config as configs
from ldm_jax import running
from ldm_jax.data import latents as stored
from ldm_jax.data import preprocess, scans, sources, store, text
from ldm_jax.data.augment import augment
from ldm_jax.data.grid import centred_affine
from ldm_jax.diffusion import grid, solvers
from ldm_jax.privacy import marginals
from ldm_jax.synthesis import generate, requests, tiling, trained
from ldm_jax.training import checkpoint, drifted, methods, networks, recorded
from ldm_jax.training import diffusion as denoising


def splits(config, work):
  """Name -> data.store.Split of the prepared cohorts of this config.

  Raises:
    ValueError: when they are not preprocessed as the autoencoder's volumes were.
  """
  running.require(work, 'prepare')
  found = splits_of_store(config, work)
  learned = work.read_json('checkpoints', 'autoencoder', 'preprocess.json')
  for split in found.values() if learned else ():
    split.check_spec(learned['spec'])
  return found


def splits_of_store(config, work):
  """As `splits`, while the stage `prepare` is still running."""
  return {
    name: store.open_split(
      work.store, name, spec=spec(config), index=work.found('store', f'{name}.json')
    )
    for name in sources.NAMES
    if config.data[name].layout
  }


def spec(config):
  """The preprocessing that the config asks for."""
  return preprocess.Spec.from_config(configs.to_plain(config.data.preprocess))


def chosen(stages):
  """'a,b' -> ('a', 'b') in the order of the pipeline; '' -> all.

  Raises:
    ValueError: for a name that is no stage.
  """
  names = [name for name in stages.split(',') if name] or list(configs.STAGES)
  unknown = set(names) - set(configs.STAGES) - {'doctor', 'audit'}
  if unknown:
    raise ValueError(
      f'--stages names {", ".join(sorted(unknown))}; stages are '
      f'{", ".join(configs.STAGES)}; and doctor and audit, which train nothing.'
    )
  return [name for name in ('doctor', *configs.STAGES, 'audit') if name in names]


def check_process(config):
  """Finds what the diffusion process of a config cannot do, before any stage runs.

  Raises:
    ValueError: for schedules, predictions, densities, weights or solvers that do not
      exist or do not go together.
  """
  schedule = networks.schedule(config)
  for adapting in (False, True):
    denoising.configured_losses(config, None, schedule, adapting=adapting)
  drifted.check(config, schedule)
  methods.prior_weight(config.adapt)
  section = config.sample
  grid.time_grid(schedule.num_timesteps, section.steps, section.spacing)
  solvers.check_solver(section.solver, section.eta)
  tiling.check(section.decode_tile, section.decode_overlap)


def check_requests(config, work):
  """Finds a misspelt request of `sample` or `counterfactual` before training starts.

  Raises:
    ValueError: for requests that cannot be drawn, or an attribute that is not there.
  """
  found = splits_of_store(config, work)
  schema = next(iter(found.values())).schema
  prior = None
  if config.sample.requests == 'private_prior':
    section = config.adapt.privacy.releases.attributes
    prior = marginals.uniform(schema, section.num_bins, section.pairs)
  asked = requests.draw(config, schema, found.get('public'), prior)
  requests.check_not_copied(config, asked, found)
  for name in set(found) & {'public', 'private'}:
    conditions(config, found[name])
  trained.requested_text(config)
  known = {name.lower() for name in schema.names}
  scans.check(config.counterfactual.source, found)
  for name in config.counterfactual.set:
    if name.lower() not in known:
      raise ValueError(
        f'config.counterfactual.set names the attribute {name!r}, but the data have '
        f'{", ".join(schema.names)}. Correct --config.counterfactual.set.{name}.'
      )


def key(config, purpose):
  """PRNG key of one purpose; public, unlike the noise key of private training."""
  key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(purpose.encode()))
  own = {'adapt': config.adapt.seed, 'sample': config.sample.seed}.get(purpose)
  return jax.random.fold_in(key, own) if own else key


def loop_arguments(config, work, name):
  """The arguments of `training.loop.train` that are the same for every stage."""
  # Steps of `adapt` are few and long (a whole batch of patients each).
  rarest = 10 if name == 'adapt' else config.run.checkpoint_every
  return {
    'folder': work.checkpoints(name),
    'log': functools.partial(work.log, name),
    'title': name,
    'log_every': config.run.log_every,
    'checkpoint_every': min(config.run.checkpoint_every, rarest),
  }


def latents(work, split):
  """Normalised latents (n,...,c) of a prepared split, in memory.

  Raises:
    ValueError: if the stage `encode` has not stored them.
  """
  running.require(work, 'encode')
  tag = work.read_json('checkpoints', 'encode', 'done.json')['tag']
  found = stored.read(work.store, split, tag)
  if found is None:
    raise ValueError(
      f'The store has no latents of the cohort {split.name!r} by this autoencoder. '
      'Run the stage encode again: --stages=encode.'
    )
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  return np.asarray(
    generate.normalise(np.asarray(found), statistics['mean'], statistics['std'])
  )


def public_volumes(config, split, indices, *draw):
  """Volumes (n,d,h,w,1) of a public split, transformed if `augment` makes copies.

  Args:
    draw: what names this draw, so that an interrupted run draws the same again.
  """
  volumes = split.volumes(indices)
  if not config.augment.copies:
    return volumes
  options = {name: value for name, value in config.augment.items() if name != 'copies'}
  words = [zlib.crc32(str(word).encode()) for word in draw]
  return augment(volumes, np.random.default_rng((config.seed, *words)), **options)


def conditions(config, split):
  """Encoded attributes (n,k) of a split, its embedded text behind them if it is used.

  Raises:
    ValueError: text that is not there or does not fit.
  """
  section = config.diffusion.text
  if not section.files:
    return split.attributes
  embedded = text.read(section.files, split, section.num_tokens, section.width)
  return np.concatenate([split.attributes, embedded], 1)


def encoder(config, work):
  """(jitted x (b,d,h,w,1) -> posterior mean (b,...,c), parameters) as trained."""
  params = checkpoint.load_params(work.checkpoints('autoencoder'))
  module = networks.autoencoder(config.autoencoder)
  return jax.jit(
    lambda x: module.apply({'params': params}, x, method='encode')[0]
  ), params


def system(config, work):
  """(synthesis.trained.Trained, splits) of the finished stages."""
  found = splits(config, work)
  split = next(iter(found.values()))
  recorded.check_schema(work, trained.sampled_stage(config, work), split.schema)
  return trained.load(config, work, split.schema, split.shape), found


def sample_affine(split):
  """Affine of a synthetic volume: the spacing of this split, centred, along RAS."""
  spacing = np.median(
    [
      np.linalg.norm(split.affine(index)[:3, :3], axis=0)
      for index in range(min(len(split), 50))
    ],
    axis=0,
  )
  return centred_affine(split.shape, spacing)
