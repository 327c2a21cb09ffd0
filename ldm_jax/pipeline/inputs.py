"""What a stage works with: config, work folder -> splits, latents, system."""

import functools
import zlib

import jax
import numpy as np

from ldm_jax.config import parsing
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.augment import augment
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.data.store import latents as stored_latents
from ldm_jax.data.store import store, text_embeddings
from ldm_jax.synthesis import system as trained_system
from ldm_jax.training import checkpoint, encoding, model_record


def splits(config, work):
  """Name -> data.store.Split of the prepared cohorts of this config.

  Raises:
    ValueError: when they are not preprocessed as the autoencoder's volumes were.
  """
  require(work, 'prepare')
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
    for name in cohorts_of_config.NAMES
    if config.data[name].layout
  }


def spec(config):
  """The preprocessing that the config asks for."""
  return preprocess.Spec.from_config(parsing.to_plain(config.data.preprocess))


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
  require(work, 'encode')
  tag = work.read_json('checkpoints', 'encode', 'done.json')['tag']
  found = stored_latents.read(work.store, split, tag)
  if found is None:
    raise ValueError(
      f'The store has no latents of the cohort {split.name!r} by this autoencoder. '
      'Run the stage encode again: --stages=encode.'
    )
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  return np.asarray(
    encoding.normalise(np.asarray(found), statistics['mean'], statistics['std'])
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
  embedded = text_embeddings.read(
    section.files, split, section.num_tokens, section.width
  )
  return np.concatenate([split.attributes, embedded], 1)


def system(config, work):
  """(synthesis.system.System, splits) of the finished stages."""
  found = splits(config, work)
  split = next(iter(found.values()))
  model_record.check_schema(
    work, trained_system.sampled_stage(config, work), split.schema
  )
  return trained_system.load(config, work, split.schema, split.shape), found


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


def learned_once(work, name, mark, learn):
  """Parameters of a network beside the stages, learned anew when its mark changes.

  Args:
    mark: digest of everything they are learned from.
    learn: () -> nested parameters; it resumes from the folder of checkpoints of `name`.
  """
  if work.finished(name) != mark:
    work.restart(name, mark)
    checkpoint.save_params(work.checkpoints(name), learn())
    work.finish(name, mark)
  return checkpoint.load_params(work.checkpoints(name))


def require(work, name):
  """Raises ValueError when the stage `name` has not been finished."""
  if work.finished(name) is None:
    raise ValueError(
      f'The stage {name!r} has not been run in {work.root}. Run it first: '
      f'--stages={name},... or leave --stages away to run all.'
    )
