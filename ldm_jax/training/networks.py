"""From config sections to modules and schedules: the one place that builds networks."""

import jax
import jax.numpy as jnp

from ldm_jax.config import to_plain
from ldm_jax.diffusion import schedules
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.conditional import ConditionalDenoiser
from ldm_jax.models.features import Segmenter


def autoencoder(section):
  """The autoencoder of `config.autoencoder`."""
  return Autoencoder(**_frozen(section.model))


def denoiser(config, schema):
  """The conditional denoiser of `config.diffusion` over the schema's attributes."""
  latent_channels = config.autoencoder.model.latent_channels
  return ConditionalDenoiser(
    num_categories=schema.num_categories,
    in_channels=latent_channels,
    out_channels=latent_channels,
    conditioner_kwargs=_frozen(config.diffusion.conditioner),
    unet_kwargs=_frozen(config.diffusion.model),
  )


def segmenter(config):
  """The measuring network of `config.evaluate`, one class a label value."""
  section = _frozen(config.evaluate.segmenter)
  names = ('channels', 'kernels', 'strides', 'norm_groups')
  return Segmenter(
    num_classes=len(config.evaluate.labels), **{name: section[name] for name in names}
  )


def schedule(config):
  """The noise schedule of `config.diffusion.schedule`."""
  section = config.diffusion.schedule
  return schedules.schedule(**_frozen(section))


def initialise(module, key, *examples, method=None):
  """Parameters of a module for example arguments, made in one compiled call."""
  init = jax.jit(lambda key: module.init(key, *examples, method=method))
  return init(key)['params']


def initial_denoiser(module, key, latent_shape, num_attributes):
  """Parameters of a denoiser for latents (d,h,w,c)."""
  return initialise(
    module,
    key,
    jnp.zeros((1, *latent_shape)),
    jnp.zeros((1,), jnp.int32),
    jnp.zeros((1, num_attributes)),
    jnp.zeros((1,), bool),
  )


def _frozen(section):
  return {
    key: _tuples(value) if isinstance(value, list) else value
    for key, value in to_plain(section).items()
  }


def _tuples(value):
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
