"""A trained system read back from its work folder: encode, denoise, decode."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.store import text_embeddings
from ldm_jax.diffusion.schedules import Schedule
from ldm_jax.synthesis.editors import pairs
from ldm_jax.training import checkpoint, drift_setting, model_record, networks, state


@dataclasses.dataclass(frozen=True)
class Trained:
  """What generation and counterfactuals need; all functions are jitted.

  Attributes:
    schema: attributes of a request.
    params: denoiser parameters.
    apply_denoiser: (params, z_t, t, attributes, drop) -> output; with
      mutable=['intermediates'] also what the network sows.
    encode: x (b,d,h,w,1) -> posterior mean z (b,...,c).
    decode: z -> x.
    latent_shape: (...,c) of one latent.
    statistics: {'latent_mean', 'latent_std'}, each (c,), from public latents.
    schedule, prediction, drift: of the diffusion process.
    time: `pairs.Time` of a model trained on pairs of visits, else None.
    name: which model it is, with the start of its parameters' sha256, for people.
  """

  schema: Schema
  params: dict
  apply_denoiser: Callable
  encode: Callable
  decode: Callable
  latent_shape: tuple
  statistics: dict
  schedule: Schedule
  prediction: str
  drift: object
  time: object = None
  name: str = ''


def requested_text(config):
  """Embedded text (m e,) that `sample.text` gives to all samples, or None.

  Raises:
    ValueError: a file that is not there or does not fit `diffusion.text`.
  """
  section = config.diffusion.text
  if not config.sample.text:
    return None
  return text_embeddings.read_one(config.sample.text, section.num_tokens, section.width)


def sampled_stage(config, work):
  """The stage whose denoiser `sample.model` asks for: 'adapt' or 'diffusion'.

  Whether there is an adapted one is what the stage `adapt` left, not whether the config
  names a private cohort now: its scans need not be there to sample.
  """
  done = work.read_json('checkpoints', 'adapt', 'done.json') or {}
  is_adapted = done.get('adapted', bool(config.data.private.layout))
  return 'adapt' if config.sample.model == 'adapt' and is_adapted else 'diffusion'


def load(config, work, schema, volume_shape):
  """Reads the autoencoder and the denoiser that `sample.model` names.

  Args:
    config, work: of the run.
    schema: attributes the denoiser was trained with.
    volume_shape: (d,h,w) of the preprocessed volumes.

  Raises:
    ValueError: if a stage has not finished.
  """
  stage = sampled_stage(config, work)
  is_adapted = stage == 'adapt'
  autoencoder = networks.autoencoder(config.autoencoder)
  weights = checkpoint.load_params(work.checkpoints('autoencoder'))
  denoiser = networks.denoiser(config, schema)
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  encode = jax.jit(
    lambda x: autoencoder.apply({'params': weights}, x, method='encode')[0]
  )
  z = jax.eval_shape(encode, jax.ShapeDtypeStruct((1, *volume_shape, 1), np.float32))
  params = denoiser_params(config, work, is_adapted)
  return Trained(
    schema=schema,
    params=params,
    apply_denoiser=_with_text(denoiser, requested_text(config)),
    encode=encode,
    decode=jax.jit(
      lambda z: autoencoder.apply({'params': weights}, z, method='decode')
    ),
    latent_shape=z.shape[1:],
    statistics={
      'latent_mean': np.asarray(statistics['mean'], np.float32),
      'latent_std': np.asarray(statistics['std'], np.float32),
    },
    schedule=networks.schedule(config),
    prediction=config.diffusion.prediction,
    drift=drift_setting.in_sampling(config, work) if is_adapted else None,
    time=pairs.time_of(config.adapt.pairs, schema) if is_adapted else None,
    name=_name(config, work, stage, params),
  )


def denoiser_params(config, work, is_adapted):
  """The denoiser's nested parameters, those of the adapted network as chosen."""
  public = work.checkpoints('diffusion')
  if not is_adapted:
    return checkpoint.load_params(public)
  decays = config.adapt.ema_decay
  base = {}
  if config.adapt.init == 'diffusion':
    base, current = checkpoint.load_params(public), work.finished('diffusion')
    done = work.read_json('checkpoints', 'adapt', 'done.json') or {}
    if done.get('base', current) != current:
      raise ValueError(
        'The stage diffusion was run again after adapt, whose parameters belong to '
        'the network before. Run it again too: --stages=adapt,...'
      )
  return checkpoint.load_adapted(
    work.checkpoints('adapt'), decays, config.sample.ema_decay, base
  )


def _name(config, work, stage, params):
  """The model as tables, log and report call it."""
  kept = model_record.read(work, stage) or {'name': model_record.name(config, stage)}
  return f'{kept["name"]}, sha256 {state.parameter_hash(params)[:8]}'


def _with_text(denoiser, embedded):
  """apply_denoiser of the class, the same text behind every row of attributes.

  What a pair says stands behind the text, so it needs a place even if there is none.
  """
  k, width = len(denoiser.num_categories), denoiser.num_conditions

  def apply(params, z_t, t, attributes, drop, mutable=False):
    own, pair = attributes[:, :k], attributes[:, k:]
    if embedded is not None or pair.shape[1]:
      rows = jnp.full(width - k, jnp.nan) if embedded is None else embedded
      rows = jnp.broadcast_to(rows, (len(own), len(rows)))
      attributes = jnp.concatenate([own, rows, pair], 1)
    return denoiser.apply({'params': params}, z_t, t, attributes, drop, mutable=mutable)

  return apply
