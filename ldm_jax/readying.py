"""What the stage `adapt` begins from: versions of the scans, parameters worth training.

Both are settled before the first private step: the versions of a volume from this
volume and a seed, the parameters from shapes alone.
"""

import hashlib

import numpy as np

from ldm_jax import staging
from ldm_jax.data import longitudinal
from ldm_jax.data.augment import augment
from ldm_jax.data.batching import chunks
from ldm_jax.models import paired as reading
from ldm_jax.synthesis import generate
from ldm_jax.training import diffusion as denoising
from ldm_jax.training import idle, networks, paired, private
from ldm_jax.workfolder import progress_bar


def latents(config, work, split):
  """Latents (v n,...,c) of the private volumes and of their transformed versions.

  Version 0 is the volume, the others are as `adapt.augment` says. What is drawn for a
  volume depends on that volume (of pairs: on its patient's name) and the seed alone:
  another patient, added or removed, changes no version of this one's, which the
  sensitivity of the step relies on.
  """
  section, found = config.adapt.augment, [staging.latents(work, split)]
  if section.multiplicity == 1:
    return found[0]
  options = {key: value for key, value in section.items() if key != 'multiplicity'}
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  encode, _ = staging.encoder(config, work)
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
        z = generate.normalise(encode(x), statistics['mean'], statistics['std'])
        found.append(np.asarray(z)[real])
        advance(copy * len(split) + int(indices[real][-1]) + 1)
  return np.concatenate(found)


def examples(config, split, latents):
  """What a step draws from: `private.patient_arrays` of scans, or of their pairs."""
  section, conditions = config.adapt.pairs, staging.conditions(config, split)
  if not section.use:
    return private.patient_arrays(split, latents, conditions)
  limits = section.min_years, section.max_years, section.adjacent
  found = longitudinal.entry_pairs(split, *limits)
  ways = section.both_directions, section.singles
  return private.patient_arrays(
    *paired.examples(split, latents, conditions, found, *ways)
  )


def for_pairs(config, schema, latent_shape):
  """Flat parameters that read pairs, which every method trains; {} without pairs."""
  if not config.adapt.pairs.use:
    return {}
  module = networks.denoiser(config, schema)
  return reading.added(module, latent_shape)


def leave_out_idle(config, work, split, latent_shape, trained, frozen):
  """Moves parameters that would gather nothing but noise from trained to frozen.

  Found once a run, from shapes alone (see training.idle), and kept beside the
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
      (probe.adapt.pairs, 'drop_condition'),
    ):
      section[key] = 0.5 if 0 < section[key] < 1 else section[key]
    width = reading.size(latent_shape) if config.adapt.pairs.use else 0
    losses = denoising.configured_losses(
      probe,
      networks.denoiser(probe, split.schema),
      networks.schedule(probe),
      probe.adapt.drift,
      adapting=True,
    )
    names = idle.idle(
      losses,
      trained,
      frozen,
      latent_shape,
      len(split.schema),
      staging.conditions(config, split).shape[1] + width,
    )
    # Their gradient passes through all of the network, whatever years were drawn.
    names = [name for name in names if not reading.is_paired(name)]
    work.write_json(names, *place)
    if names:
      work.log('adapt', not_trained=names, reason='no gradient reaches them')
      print(f'adapt: not trained, since no gradient reaches them: {", ".join(names)}')
  left = {path: leaf for path, leaf in trained.items() if path not in set(names)}
  return left, {**frozen, **{path: trained[path] for path in names}}
