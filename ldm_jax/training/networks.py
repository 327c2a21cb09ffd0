"""Builds all networks and schedules from sections of the config."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax import prng
from ldm_jax.config.parsing import to_plain
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.diffusion import schedules
from ldm_jax.models.autoencoders.autoencoder import Autoencoder
from ldm_jax.models.autoencoders.wavelet import Wavelet
from ldm_jax.models.critics.discriminator import PatchDiscriminator
from ldm_jax.models.critics.segmenter import Segmenter
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.models.denoisers.daum24 import SliceUNet
from ldm_jax.training import checkpoint, one_off
from ldm_jax.types import Array, Config, PyTree, Shape


def label_values(config: Config) -> tuple[int, ...]:
  """Values of the label maps that the model draws with its scans; () for none."""
  return tuple(config.evaluate.labels) if config.data.labels == 'joint' else ()


def mask_values(config: Config) -> tuple[int, ...]:
  """Values of the label maps that the denoiser is given; () where it gets none."""
  is_given = 'mask' in config.diffusion.conditioner.by
  return tuple(config.evaluate.labels) if is_given else ()


def autoencoder(section: Config, num_labels: int = 0) -> Autoencoder | Wavelet:
  """The autoencoder of `config.autoencoder`; a wavelet transform by `model.kind`.

  Args:
    section: `config.autoencoder`.
    num_labels: channels of a label map beside the intensities, of `label_values`.
  """
  described = checkpoint.described(section.init, 'Autoencoder', 'autoencoder.init')
  if described is not None:
    return Autoencoder(**described)
  options = _frozen(section.model)
  if options.pop('kind') == 'wavelet':
    return Wavelet(**{name: options[name] for name in ('latent_channels', 'strides')})
  finest, others = options.pop('num_finest_blocks'), options['num_res_blocks']
  if finest is not None:
    options['num_res_blocks'] = (finest,) + (others,) * (len(options['channels']) - 1)
  return Autoencoder(**options, num_labels=num_labels)


def discriminator(section: Config) -> PatchDiscriminator:
  """The discriminator of `config.autoencoder.adversarial`."""
  options = _frozen(section.adversarial)
  names = ('channels', 'strides', 'planes', 'num_scales')
  return PatchDiscriminator(
    kernels=options['kernel'], **{name: options[name] for name in names}
  )


def feature_network(section: Config) -> Segmenter:
  """The network of `config.autoencoder.perceptual` where that is 'public'."""
  options = _frozen(section.perceptual)
  return Segmenter(
    num_classes=1,
    channels=options['channels'],
    kernels=options['kernel'],
    strides=options['strides'],
  )


def denoiser(config: Config, schema: Schema) -> ConditionalDenoiser:
  """The conditional denoiser of `config.diffusion` for the schema's attributes."""
  latent_channels = autoencoder(config.autoencoder).latent_channels
  conditioner = _frozen(config.diffusion.conditioner)
  by, text = conditioner.pop('by'), config.diffusion.text
  pairs = config.adapt.pairs
  return ConditionalDenoiser(
    num_categories=schema.num_categories,
    in_channels=latent_channels,
    out_channels=latent_channels,
    conditioner_kwargs=conditioner,
    unet_kwargs=_denoiser_options(config.diffusion),
    kind=config.diffusion.model.kind,
    by=by,
    text_shape=(text.num_tokens, text.width) if text.files else None,
    gap=pairs.gap if pairs.use else None,
    of_changes=pairs.use and pairs.change_scale is not None,
    num_labels=len(mask_values(config)),
  )


def applied(module: nn.Module) -> Callable[..., Array]:
  """A denoiser as a function: (params, z_t, t, conditions, drop) -> output."""
  return lambda params, *inputs: module.apply({'params': params}, *inputs)


def _denoiser_options(section):
  """Options of the denoiser network of `config.diffusion`."""
  described = checkpoint.described(section.init, 'UNet', 'diffusion.init')
  if described is not None:
    # These are set by the latent and by the conditioner.
    owned = ('in_channels', 'out_channels', 'context_dim')
    return {name: v for name, v in described.items() if name not in owned}
  options = _frozen(section.model)
  kind, transformer = options.pop('kind'), options.pop('dit')
  dtype = {'float32': None, 'bfloat16': jnp.bfloat16}[options.pop('dtype')]
  if kind == 'dit':
    transformer = {name: _tuples(value) for name, value in transformer.items()}
    return {**transformer, 'remat': options['remat'], 'dtype': dtype}
  if kind == 'daum24':
    # These options do not apply to it: its blocks are fixed.
    for name in ('attention', 'resblock_updown', 'modulates'):
      del options[name]
    options['num_heads'] = options['num_heads'] or SliceUNet.num_heads
  return {**options, 'dtype': dtype}


def segmenter(config: Config) -> Segmenter:
  """The segmentation network of `config.evaluate`, one class per label value."""
  section = _frozen(config.evaluate.segmenter)
  names = ('patch', 'channels', 'kernels', 'strides', 'norm_groups')
  return Segmenter(
    num_classes=len(config.evaluate.labels), **{name: section[name] for name in names}
  )


def schedule(config: Config) -> schedules.AnySchedule:
  """The noise schedule of `config.diffusion.schedule`."""
  section = config.diffusion.schedule
  return schedules.schedule(**_frozen(section))


def initialise(
  module: nn.Module, key: jax.Array, *examples: Array, method: str | None = None
) -> PyTree:
  """Initial parameters of a module for example arguments, in one compiled call."""
  init = one_off.jit(lambda key, *x: module.init(key, *x, method=method))
  return init(key, *examples)['params']


def initial_denoiser(
  module: nn.Module, key: jax.Array, latent_shape: Shape, num_attributes: int
) -> PyTree:
  """Initial parameters of a denoiser for latents (d,h,w,c)."""
  return initialise(
    module,
    key,
    jnp.zeros((1, *latent_shape)),
    jnp.zeros((1,), jnp.int32),
    jnp.zeros((1, num_attributes)),
    jnp.zeros((1,), bool),
  )


def denoiser_shapes(config: Config, schema: Schema) -> tuple[PyTree, Shape]:
  """Shapes of the denoiser without allocating weights.

  Returns:
    (nested shapes of the parameters, shape (...,c) of one latent).
  """
  module, shape = denoiser(config, schema), latent_shape(config)
  key, text = jax.eval_shape(lambda: prng.key(0)), config.diffusion.text
  width = len(schema) + (text.num_tokens * text.width if text.files else 0)
  init = lambda key: initial_denoiser(module, key, shape, width)
  return jax.eval_shape(init, key), shape


def latent_shape(config: Config) -> Shape:
  """Shape (...,c) of one latent, without allocating weights."""
  num_labels = len(label_values(config))
  encoder = autoencoder(config.autoencoder, num_labels)
  shape = (1, *config.data.preprocess.shape, 1 + num_labels)
  x, key = jax.ShapeDtypeStruct(shape, jnp.float32), jax.eval_shape(lambda: prng.key(0))
  encode = lambda key, x: encoder.init_with_output(key, x, method='encode')[0][0]
  return jax.eval_shape(encode, key, x).shape[1:]


def _frozen(section):
  return {
    key: _tuples(value) if isinstance(value, list) else value
    for key, value in to_plain(section).items()
  }


def _tuples(value):
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
