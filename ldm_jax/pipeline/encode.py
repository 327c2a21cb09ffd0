"""The stage `encode` in parts: posterior means, and log variances on request.

With `encode.logvar`, pre-training sees a new draw of every latent at every step, as
latent diffusion did first (Rombach et al. 2022); without, it sees the means.
"""

import hashlib
import zlib

import numpy as np

from ldm_jax.data.batching import chunks
from ldm_jax.data.preprocessing.augment import augment
from ldm_jax.data.store import latents as stored_latents
from ldm_jax.pipeline import inputs
from ldm_jax.training import encoding
from ldm_jax.workfolder import progress_bar


def encode(config, work, split, tag, autoencoder):
  """Encodes a split, keeps what is asked for in the store, returns the means (n,...,c).

  What the store holds of this autoencoder stays as it is: on other devices it would
  come out with other last bits, under models that were trained on these.

  Args:
    config, work: of the run.
    split: prepared cohort.
    tag: hash of the autoencoder.
    autoencoder: `encoding.TrainedAutoencoder`.
  """
  kinds = ('mean', 'logvar') if config.encode.logvar else ('mean',)
  kept = {kind: stored_latents.read(work.store, split, tag, kind) for kind in kinds}
  if all(latents is not None for latents in kept.values()):
    return np.asarray(kept['mean'])
  encoder = autoencoder.posterior if config.encode.logvar else autoencoder.encode
  with progress_bar(f'encode {split.name}', len(split), 'volume') as advance:
    found = encoding.encode_split(
      encoder, split, config.autoencoder.batch_size, advance
    )
  found = dict(zip(kinds, np.split(found, len(kinds), axis=-1), strict=True))
  for kind in reversed(kinds):
    if kept[kind] is None:
      stored_latents.write(work.store, split, tag, found[kind], kind)
  return found['mean'] if kept['mean'] is None else np.asarray(kept['mean'])


def pretraining_examples(config, work, split):
  """Normalised latents (n,...,c) and conditions (n,k) of a public split.

  With `augment.copies` = m, n is 1 + m times the number of volumes.
  """
  copies, batch_size = config.augment.copies, config.autoencoder.batch_size
  found = [inputs.latents(work, split)]
  if not copies:
    return found[0], inputs.conditions(config, split)
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  encode = encoding.trained_autoencoder(config, work).encode
  with progress_bar('transform public', copies * len(split), 'volume') as advance:
    for copy in range(copies):
      for indices, real in chunks(np.arange(len(split)), batch_size):
        x = inputs.public_volumes(config, split, indices, 'copy', copy, indices[0])
        z = encoding.normalise(encode(x), statistics['mean'], statistics['std'])
        found.append(np.asarray(z)[real])
        advance(copy * len(split) + int(indices[real][-1]) + 1)
  own = inputs.conditions(config, split)
  return np.concatenate(found), np.tile(own, (1 + copies, 1))


def redraw(config, work, split):
  """(normalised means of some examples, their indices, step) -> draws of the posterior.

  It changes nothing without `encode.logvar`. A transformed copy of a volume has the
  deviation of the volume. The draw depends on the config's seed and the step alone.

  Raises:
    ValueError: if the stage `encode` has stored no log variances.
  """
  if not config.encode.logvar:
    return lambda z, indices, step: z
  tag = work.read_json('checkpoints', 'encode', 'done.json')['tag']
  logvar = stored_latents.read(work.store, split, tag, 'logvar')
  if logvar is None:
    raise ValueError(
      f'The store has no log variances of the cohort {split.name!r}, but encode.logvar '
      'is set. Run the stage encode again: --stages=encode.'
    )
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  std = np.exp(np.asarray(logvar) / 2) / np.asarray(statistics['std'], np.float32)

  def draw(z, indices, step):
    generator = np.random.default_rng((config.seed, zlib.crc32(b'posterior'), step))
    noise = generator.standard_normal(z.shape, np.float32)
    return z + std[indices % len(std)] * noise

  return draw


def latents(config, work, split):
  """Latents (v n,...,c) of the private volumes and of their transformed versions.

  Version 0 is the volume, the others are as `adapt.augment` says. What is drawn for a
  volume depends on that volume (of pairs: on its patient's name) and the seed alone:
  another patient, added or removed, changes no version of this one's, which the
  sensitivity of the step relies on.
  """
  section, found = config.adapt.augment, [inputs.latents(work, split)]
  if section.multiplicity == 1:
    return found[0]
  options = {key: value for key, value in section.items() if key != 'multiplicity'}
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  encode = encoding.trained_autoencoder(config, work).encode
  seed, copies = config.seed + config.adapt.seed, section.multiplicity - 1

  # Two scans of a pair must move alike, so all scans of a patient do.
  names = split.patients if config.adapt.pairs.use else split.keys

  def transformed(index, volume, copy):
    words = hashlib.sha256(f'{seed}:{names[index]}:{copy}'.encode()).digest()
    draws = np.random.default_rng(int.from_bytes(words))
    return augment(volume[None], draws, **options)[0]

  with progress_bar('transform private', copies * len(split), 'volume') as advance:
    for copy in range(copies):
      for indices, real in chunks(np.arange(len(split)), config.autoencoder.batch_size):
        volumes = split.volumes(indices)
        pairs = zip(indices, volumes, strict=True)
        x = np.stack([transformed(index, volume, copy) for index, volume in pairs])
        z = encoding.normalise(encode(x), statistics['mean'], statistics['std'])
        found.append(np.asarray(z)[real])
        advance(copy * len(split) + int(indices[real][-1]) + 1)
  return np.concatenate(found)
