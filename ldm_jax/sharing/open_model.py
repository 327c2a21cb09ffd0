"""Opens a shared model: a folder or zip -> networks with their parameters."""

from __future__ import annotations

import os

import jax
import numpy as np

from ldm_jax import prng
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.sharing import asking, package, settings, tensors
from ldm_jax.sharing.shared_model import SharedModel
from ldm_jax.synthesis import system as systems
from ldm_jax.synthesis.editors import instruct_pix2pix
from ldm_jax.training import encoding, networks

LATEST = 'It was made by another version: pip install --upgrade ldm-jax.'


def load(path: str | os.PathLike) -> SharedModel:
  """The model in a folder or zip that `ldm-jax --stages=export` made.

  Raises:
    ValueError: no such model, or one that was changed, cut off or made by a version
      that this one does not understand.
  """
  files = package.read(path)
  plain, grid, schema, privacy = (
    package.parsed(name, files[name])
    for name in (package.CONFIG, package.PREPROCESS, package.SCHEMA, package.PRIVACY)
  )
  if plain.get('format') != settings.FORMAT:
    raise ValueError(
      f'{path} has the format {plain.get("format")!r}, expected {settings.FORMAT}. '
      f'{LATEST}'
    )
  prior = files.get(package.PRIOR)
  spec, attributes = (
    preprocess.Spec.from_config(grid['spec']),
    Schema.from_config(schema),
  )
  try:
    config = settings.restore(plain, spec.shape)
  except ValueError as error:
    raise ValueError(f'{path} cannot be used: {error} {LATEST}') from error
  return SharedModel(
    about=plain['about'],
    config=config,
    schema=attributes,
    privacy=privacy,
    prior=None if prior is None else package.parsed(package.PRIOR, prior),
    asked=_asked(path, attributes, files),
    spec=spec,
    affine=centred_affine(spec.shape, grid['sample_spacing_mm']),
    stack=bool(grid['stack']),
    system=_system(plain, config, attributes, files[package.WEIGHTS]),
  )


def _asked(path, schema, files):
  """Encoded requests (n,k) of the samples beside the model, or None."""
  content = files.get(package.PARTICIPANTS)
  if content is None:
    return None
  try:
    return asking.requested(schema, content.decode())
  except ValueError as error:
    raise ValueError(f'{path}: {package.PARTICIPANTS}: {error}') from error


def _system(plain, config, schema, content):
  converted, is_adapted = plain.get('converted', {}), plain['about']['adapted']
  params, statistics = tensors.from_bytes(content)
  encoder = encoding.TrainedAutoencoder(
    settings.autoencoder(config, converted), params['autoencoder']
  )
  denoiser = settings.denoiser(config, schema, converted)
  shape = (1, *config.data.preprocess.shape, 1 + encoder.module.num_labels)
  x, key = jax.ShapeDtypeStruct(shape, np.float32), jax.eval_shape(lambda: prng.key(0))
  expected = jax.eval_shape(encoder.module.init, key, x).get('params', {})
  tensors.check_shapes('autoencoder', params['autoencoder'], expected)
  latent_shape = jax.eval_shape(encoder.encode, x).shape[1:]
  initial = lambda key: networks.initial_denoiser(
    denoiser, key, latent_shape, denoiser.num_conditions
  )
  expected = jax.eval_shape(initial, key)
  tensors.check_shapes('denoiser', params['denoiser'], expected)
  return systems.System(
    schema=schema,
    params=params['denoiser'],
    apply_denoiser=systems.with_text(denoiser, None),
    encode=encoder.encode,
    decode=encoder.decode,
    latent_shape=latent_shape,
    statistics=statistics,
    schedule=networks.schedule(config),
    prediction=config.diffusion.prediction,
    drift=settings.drift_of(config, is_adapted),
    time=instruct_pix2pix.time_of(config.adapt.pairs, schema) if is_adapted else None,
    name=plain['about']['model'],
    residual=plain['residual_noise'] if config.sample.residual_noise else None,
    decode_labelled=encoder.decode_labelled,
  )
