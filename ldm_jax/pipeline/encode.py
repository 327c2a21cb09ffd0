"""The stage `encode` in parts: posterior means, and log variances on request.

With `encode.logvar`, pre-training sees a new draw of every latent at every step, as
latent diffusion did first (Rombach et al. 2022); without, it sees the means.

The stage leaves, in the store, the latents of the public and the private cohort; in
checkpoints/encode, latent_statistics.json of the public ones and reconstruction.json.
"""

import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from ldm_jax.data.batching import chunks
from ldm_jax.data.cohorts import roles
from ldm_jax.data.store import latents as stored_latents
from ldm_jax.data.store.split import Split
from ldm_jax.pipeline.run import Run
from ldm_jax.training import encoding
from ldm_jax.types import Array
from ldm_jax.workfolder import progress_bar

ENCODED = ('public', 'private')  # cohorts whose latents are stored


def encode(run: Run, split: Split, tag: str) -> np.ndarray:
  """Encodes a split, stores what is asked for, returns the means (n,...,c).

  What the store holds of this autoencoder stays as it is: on other devices it would
  come out with other last bits, under models that were trained on these.

  Args:
    run: of the stage.
    split: prepared cohort.
    tag: hash of the autoencoder.
  """
  config, store = run.config, run.work.store
  kinds = ('mean', 'logvar') if config.encode.logvar else ('mean',)
  kept = {
    kind: stored_latents.read(store, split, tag, kind)
    if stored_latents.is_whole(store, split, tag, kind)
    else None
    for kind in kinds
  }
  if all(latents is not None for latents in kept.values()):
    return np.asarray(kept['mean'])
  encoder = (
    run.autoencoder.posterior if config.encode.logvar else run.autoencoder.encode
  )
  title, counted = f'encode {split.name}', split.name not in roles.CONFIDENTIAL
  with progress_bar(title, len(split), 'volume', counted) as advance:
    encoded = encoding.encode_split(
      encoder,
      split,
      config.autoencoder.batch_size,
      advance,
      lambda indices: run.inputs(split, indices),
    )
  found = dict(zip(kinds, np.split(encoded, len(kinds), axis=-1), strict=True))
  for kind in reversed(kinds):
    if kept[kind] is None:
      stored_latents.write(store, split, tag, found[kind], kind)
  return found['mean'] if kept['mean'] is None else np.asarray(kept['mean'])


def damaged(run: Run) -> list[pathlib.Path]:
  """Files of latents that the finished stage has stored and that cannot be read."""
  store, tag = run.work.store, run.tag
  kinds = ('mean', 'logvar') if run.config.encode.logvar else ('mean',)
  return [
    stored_latents.path(store, split, tag, kind)
    for name, split in run.prepared.items()
    for kind in kinds
    if name in ENCODED and not stored_latents.is_whole(store, split, tag, kind)
  ]


def with_copies(
  run: Run,
  split: Split,
  num_copies: int,
  volumes_of: Callable[[np.ndarray, int], np.ndarray],
) -> np.ndarray:
  """Normalised latents ((1 + m) n,...,c) of a split and of m transformed copies of it.

  Args:
    run: whose stage `encode` has finished.
    split: prepared cohort of n volumes.
    num_copies: m.
    volumes_of: (indices (b,), copy) -> transformed `Run.inputs` (b,d,h,w,...).
  """
  found = [run.latents(split)]
  if not num_copies:
    return found[0]
  title, total = f'transform {split.name}', num_copies * len(split)
  size = run.config.autoencoder.batch_size
  counted = split.name not in roles.CONFIDENTIAL
  with progress_bar(title, total, 'volume', counted) as advance:
    for copy in range(num_copies):

      def transformed(rows, copy=copy):
        ((indices, real),) = chunks(rows, size)
        return run.normalise(run.autoencoder.encode(volumes_of(indices, copy)))[real]

      done = lambda rows, copy=copy: advance(copy * len(split) + rows)
      found.append(encoding.in_shared_batches(transformed, len(split), size, done))
  return np.concatenate(found)


def redraw(run: Run, split: Split) -> Callable[[Array, np.ndarray, int], Array]:
  """(normalised means of some examples, their indices, step) -> draws of the posterior.

  It changes nothing without `encode.logvar`. A transformed copy of a volume has the
  deviation of the volume. The draw depends on the config's seed and the step alone.

  Raises:
    ValueError: the stage `encode` has stored no log variances.
  """
  if not run.config.encode.logvar:
    return lambda z, indices, step: z
  logvar = run.stored(split, 'logvar')
  if logvar is None:
    raise ValueError(
      f'The store has no log variances of the cohort {split.name!r}, but encode.logvar '
      'is set. Run the stage encode again: --stages=encode.'
    )
  std = np.exp(np.asarray(logvar) / 2)
  std = std / np.asarray(run.statistics['std'], np.float32)

  def draw(z, indices, step):
    words = (run.config.seed, zlib.crc32(b'posterior'), step)
    noise = np.random.default_rng(words).standard_normal(z.shape, np.float32)
    return z + std[indices % len(std)] * noise

  return draw
