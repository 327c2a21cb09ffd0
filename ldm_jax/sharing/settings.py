"""The settings that leave with a model: what sampling and editing read, no more.

`cut` takes them from the config of a run: no path, no cohort, no training. `restore`
makes a config of them, in which every other key has its default value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from ldm_jax.config import loading, parsing
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.diffusion import drift
from ldm_jax.models.autoencoders.autoencoder import Autoencoder
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.training import checkpoint, networks
from ldm_jax.types import Config

# Raised when the meaning of a shared folder changes.
FORMAT = 1
# Keys of the config that sampling or editing reads.
KEYS = (
  *('seed', 'autoencoder.model', 'diffusion.schedule', 'diffusion.prediction'),
  *('diffusion.model', 'diffusion.conditioner', 'diffusion.text.num_tokens'),
  *('diffusion.text.width', 'adapt.pairs.use', 'adapt.pairs.gap'),
  *('adapt.pairs.change_scale', 'adapt.pairs.both_directions'),
  *('adapt.drift.variant', 'adapt.drift.target', 'adapt.drift.training'),
  *('adapt.drift.sampling', 'sample.seed', 'sample.steps', 'sample.solver'),
  *('sample.eta', 'sample.spacing', 'sample.guidance', 'sample.batch_size'),
  *('sample.decode_tile', 'sample.decode_overlap', 'sample.residual_noise'),
  *('counterfactual.editor',),
  *('counterfactual.steps', 'counterfactual.guidance', 'counterfactual.keep_detail'),
  *('counterfactual.least_change', 'counterfactual.ddim', 'counterfactual.ddpm'),
  *('counterfactual.pairs', 'counterfactual.sdedit', 'counterfactual.pix2pix_zero'),
)
# Those of a model that draws label maps with its scans, or draws scans for them.
OF_LABELS = ('data.labels', 'evaluate.labels', 'evaluate.label_names')
# In place of the file of texts: that there was one decides the network's inputs.
GIVEN = 'given'
# Stage -> class of a module whose options ldm-jax-convert wrote beside the weights.
CONVERTED = {'autoencoder': 'Autoencoder', 'diffusion': 'UNet'}


def cut(config: Config, drift_value: Any) -> dict[str, Any]:
  """{'settings', 'converted'}, JSON-able, of the config of a run.

  Args:
    config: of the run.
    drift_value: that samples are drawn with, a number or one a channel; None for none.
  """
  has_labels = config.data.labels or 'mask' in config.diffusion.conditioner.by
  keys = (*KEYS, *(OF_LABELS if has_labels else ()))
  flat = {
    key: value
    for key, value in parsing.flatten(config).items()
    if any(f'{key}.'.startswith(f'{kept}.') for kept in keys)
  }
  flat['diffusion.text.files'] = GIVEN if config.diffusion.text.files else ''
  flat['adapt.drift.value'] = 0.0 if drift_value is None else drift_value
  settings: dict[str, Any] = {}
  for key, value in flat.items():
    *parents, leaf = key.split('.')
    section = settings
    for parent in parents:
      section = section.setdefault(parent, {})
    section[leaf] = np.asarray(value).tolist() if key.endswith('drift.value') else value
  converted = {
    stage: checkpoint.described(config[stage].init, kind, f'{stage}.init')
    for stage, kind in CONVERTED.items()
  }
  return json.loads(
    json.dumps(
      {
        'settings': settings,
        'converted': {stage: found for stage, found in converted.items() if found},
      },
      default=list,
    )
  )


def restore(plain: Mapping[str, Any], shape: Any) -> Config:
  """The config of a shared folder, for volumes of a shape (d,h,w).

  Raises:
    ValueError: it has a key that this version does not know.
  """
  config = loading.from_plain(plain['settings'], 'config.json of the model')
  config.data.preprocess.shape = tuple(shape)
  return config


def drift_of(config: Config, is_adapted: bool) -> drift.Drift | None:
  """The drift that the model of a restored config is sampled with."""
  section = config.adapt.drift
  if not is_adapted or not section.sampling:
    return None
  value = section.value
  value = np.asarray(value, np.float32) if isinstance(value, tuple) else value
  target = section.target if section.training else 'shifted'
  return drift.of(drift.Drift(value, section.variant, target, 0.0))


def autoencoder(config: Config, converted: Mapping[str, Any]) -> nn.Module:
  """The autoencoder of a restored config, without parameters."""
  options = converted.get('autoencoder')
  if options:
    return Autoencoder(**options)
  num_labels = len(networks.label_values(config))
  return networks.autoencoder(config.autoencoder, num_labels)


def denoiser(
  config: Config, schema: Schema, converted: Mapping[str, Any]
) -> ConditionalDenoiser:
  """The denoiser of a restored config, without parameters."""
  module, options = networks.denoiser(config, schema), converted.get('diffusion')
  channels = autoencoder(config, converted).latent_channels
  module = module.clone(in_channels=channels, out_channels=channels)
  if not options:
    return module
  # Set by the latent and by the conditioner.
  owned = ('in_channels', 'out_channels', 'context_dim')
  kept = {name: value for name, value in options.items() if name not in owned}
  return module.clone(unet_kwargs=kept)
