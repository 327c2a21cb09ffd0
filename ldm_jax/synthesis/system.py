"""A fitted system read back from its work folder: encode, denoise, decode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.store import text_embeddings
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.synthesis import residual_noise
from ldm_jax.synthesis.editors import instruct_pix2pix
from ldm_jax.training import (
  checkpoint,
  drift_setting,
  encoding,
  model_record,
  networks,
  state,
)
from ldm_jax.types import Array, Config, PyTree, Shape

if TYPE_CHECKING:
  from ldm_jax.workfolder import WorkFolder


@dataclasses.dataclass(frozen=True)
class System:
  """What generation and counterfactuals need; all functions are compiled.

  Attributes:
    schema: attributes of a request.
    params: denoiser parameters.
    apply_denoiser: (params, z_t, t, attributes, drop) -> output; with
      mutable=['intermediates'] also the intermediate values that the network records.
    encode: x (b,d,h,w,1) -> posterior mean z (b,...,c).
    decode: z -> x.
    decode_labelled: z -> (b,d,h,w,1 + k), x and the logits of its label map; None where
      the model draws no label maps.
    latent_shape: (...,c) of one latent.
    statistics: {'latent_mean', 'latent_std'}, each (c,), from public latents.
    schedule, prediction, drift: of the diffusion process.
    time: for a model trained on pairs of visits, else None.
    name: of the model, with the start of its parameters' sha256; for display.
    residual: of `residual_noise.measure`, or None where samples stay smooth.
  """

  schema: Schema
  params: PyTree
  apply_denoiser: Callable
  encode: Callable[[Array], jax.Array]
  decode: Callable[[Array], jax.Array]
  latent_shape: Shape
  statistics: dict[str, Any]
  schedule: AnySchedule
  prediction: str
  drift: Any
  time: instruct_pix2pix.Time | None = None
  name: str = ''
  residual: residual_noise.Statistics | None = None
  decode_labelled: Callable[[Array], jax.Array] | None = None


def requested_text(config: Config) -> np.ndarray | None:
  """Embedded text (m e,) that `sample.text` gives to all samples, or None.

  Raises:
    ValueError: a file that does not exist or does not fit `diffusion.text`.
  """
  section = config.diffusion.text
  if not config.sample.text:
    return None
  return text_embeddings.read_one(config.sample.text, section.num_tokens, section.width)


def sampled_stage(config: Config, work: WorkFolder) -> str:
  """The stage whose denoiser `sample.model` names: 'adapt' or 'diffusion'.

  Whether a fine-tuned denoiser exists follows from what the stage `adapt` wrote, not
  from the config's private cohort: sampling must work without its scans.
  """
  done = work.read_json('checkpoints', 'adapt', 'done.json') or {}
  is_adapted = done.get('adapted', bool(config.data.private.layout))
  return 'adapt' if config.sample.model == 'adapt' and is_adapted else 'diffusion'


def load(
  config: Config,
  work: WorkFolder,
  autoencoder: encoding.TrainedAutoencoder,
  schema: Schema,
  volume_shape: Shape,
) -> System:
  """Reads the denoiser that `sample.model` names and joins it to the autoencoder.

  Args:
    config, work: of the run.
    autoencoder: of the run, as trained.
    schema: attributes the denoiser was trained with.
    volume_shape: (d,h,w) of the preprocessed volumes.

  Raises:
    ValueError: if a stage has not finished.
  """
  stage = sampled_stage(config, work)
  is_adapted = stage == 'adapt'
  statistics = work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  x = jax.ShapeDtypeStruct((1, *volume_shape, 1), np.float32)
  params = denoiser_params(config, work, is_adapted)
  return System(
    schema=schema,
    params=params,
    apply_denoiser=with_text(networks.denoiser(config, schema), requested_text(config)),
    encode=autoencoder.encode,
    decode=autoencoder.decode,
    latent_shape=jax.eval_shape(autoencoder.encode, x).shape[1:],
    statistics={
      'latent_mean': np.asarray(statistics['mean'], np.float32),
      'latent_std': np.asarray(statistics['std'], np.float32),
    },
    schedule=networks.schedule(config),
    prediction=config.diffusion.prediction,
    drift=drift_setting.in_sampling(config, work) if is_adapted else None,
    time=instruct_pix2pix.time_of(config.adapt.pairs, schema) if is_adapted else None,
    name=_name(config, work, stage, params),
    residual=_residual(config, work),
    decode_labelled=autoencoder.decode_labelled,
  )


def _residual(config, work):
  if not config.sample.residual_noise:
    return None
  return work.read_json('checkpoints', 'encode', 'residual_noise.json')


def denoiser_params(config: Config, work: WorkFolder, is_adapted: bool) -> PyTree:
  """Nested parameters of the denoiser, before or after the stage `adapt`.

  Of a fine-tuned network, the average that `sample.ema_decay` names.

  Raises:
    ValueError: the pre-trained network is no longer the one that was fine-tuned.
  """
  public = work.checkpoints('diffusion')
  if not is_adapted:
    return checkpoint.load_params(public)
  decays, base = config.adapt.ema_decay, {}
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
  """The model's name in tables, log and report."""
  record = model_record.read(work, stage) or {'name': model_record.name(config, stage)}
  return f'{record["name"]}, sha256 {state.parameter_hash(params)[:8]}'


def with_text(denoiser: nn.Module, embedded: np.ndarray | None) -> Callable:
  """`System.apply_denoiser` of a module: every row of attributes gets the same text.

  The columns of a pair of visits follow those of the text, so a network with text
  needs the text columns (NaN) even where no text is given.
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
