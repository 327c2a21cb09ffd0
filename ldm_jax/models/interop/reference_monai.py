"""MONAI 1.6 AutoencoderKL and DiffusionModelUNet as our modules: config, tensor names.

[MONAI] monai.networks.nets, in 2D or 3D. MAISI's networks differ in the wrappers around
their convolutions, in interpolating in the decoder and in further inputs of the UNet.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.models.autoencoders.autoencoder import Autoencoder
from ldm_jax.models.denoisers.unet import UNet
from ldm_jax.models.interop.correspondence import (
  Reference,
  examples,
  read_options,
)

_LISTS = (
  'resnets|attentions|blocks|down_blocks|up_blocks|transformer_blocks|time_embed|out'
)
_ANY = (True, False)
# Options for memory or precision, not for the function.
_SAME_FUNCTION = {'use_flash_attention': (_ANY, ''), 'upcast_attention': (_ANY, '')}
_CHECKPOINTS = {
  'use_checkpoint': (_ANY, ''),
  'use_checkpointing': (_ANY, ''),
  'num_splits': (tuple(range(1, 1000)), ''),
  'dim_split': ((0, 1, 2), ''),
  'print_info': (_ANY, ''),
  'save_mem': (_ANY, ''),
  # Norms in half precision, to save memory; ours are in float32.
  'norm_float16': (_ANY, ''),
}
_MAISI_INPUTS = {
  key: ((False,), 'the UNet of ldm_jax does not have the extra inputs of MAISI')
  for key in (
    'include_top_region_index_input',
    'include_bottom_region_index_input',
    'include_spacing_input',
  )
}


def autoencoder(config: Mapping[str, Any], maisi: bool = False) -> Reference:
  """Reference of an `AutoencoderKL` config (constructor arguments as a dict)."""
  options = read_options(
    config,
    {
      'spatial_dims': ...,
      'in_channels': 1,
      'out_channels': 1,
      'num_res_blocks': (2, 2, 2, 2),
      'channels': (32, 64, 64, 64),
      'attention_levels': (False, False, True, True),
      'latent_channels': 3,
      'norm_num_groups': 32,
      'norm_eps': 1e-6,
      'with_encoder_nonlocal_attn': True,
      'with_decoder_nonlocal_attn': True,
      'use_convtranspose': False,
      'include_fc': True,
      'use_combined_linear': False,
    },
    {'use_flash_attention': (_ANY, ''), **_CHECKPOINTS},
  )
  axes = _axes(options['spatial_dims'])
  upsampling = 'transposed' if options['use_convtranspose'] else 'nearest'
  if maisi:
    upsampling = 'linear'
  module = Autoencoder(
    in_channels=options['in_channels'],
    out_channels=options['out_channels'],
    channels=options['channels'],
    latent_channels=options['latent_channels'],
    num_res_blocks=options['num_res_blocks'],
    kernels=(3,) * axes,
    attention_levels=options['attention_levels'],
    nonlocal_attention=(
      options['with_encoder_nonlocal_attn'],
      options['with_decoder_nonlocal_attn'],
    ),
    norm_groups=options['norm_num_groups'],
    norm_eps=options['norm_eps'],
    attention_projects=options['include_fc'],
    upsampling=upsampling,
    out_activation=None,
  )
  size = (2 ** (len(options['channels']) - 1),) * axes
  inputs = examples((1, *size, options['in_channels']))
  name = functools.partial(
    _name,
    combined=options['use_combined_linear'],
    autoencoder=True,
    double=_maisi_wraps(options) if maisi else lambda path: False,
  )
  return Reference(module, inputs, name)


def _maisi_wraps(options):
  """path -> whether MAISI has its own convolution there, a wrapper around MONAI's.

  The convolutions next to the latent and in the non-local blocks are MONAI's.
  """
  num, levels = options['num_res_blocks'], len(options['channels'])
  num = (num,) * levels if isinstance(num, int) else num
  pairs = zip(num, options['attention_levels'], strict=True)
  # The first convolution, blocks with their attention, resamplers between the levels.
  length = levels + sum(n * (1 + bool(attends)) for n, attends in pairs)
  plain = [('decoder', f'blocks_{i}') for i in (1, 3)]
  if not options['with_decoder_nonlocal_attn']:
    plain = []
  if options['with_encoder_nonlocal_attn']:
    plain += [('encoder', f'blocks_{length + i}') for i in (0, 2)]
  return lambda path: path[0] in ('encoder', 'decoder') and tuple(path[:2]) not in plain


def maisi_autoencoder(config: Mapping[str, Any]) -> Reference:
  """Reference of an `AutoencoderKlMaisi` config; options to save memory are ignored."""
  if config.get('use_convtranspose'):
    raise ValueError(
      'use_convtranspose = True is not supported for MAISI: its transposed '
      'convolutions overlap, those of ldm_jax do not.'
    )
  changed = {
    'include_fc': False,
    'with_encoder_nonlocal_attn': False,
    'with_decoder_nonlocal_attn': False,
  }
  return autoencoder({**changed, **_channels(config)}, maisi=True)


def maisi_unet(config: Mapping[str, Any]) -> Reference:
  """Reference of a `DiffusionModelUNetMaisi` config without MAISI's extra inputs."""
  return unet({'include_fc': False, **_channels(config)})


def unet(config: Mapping[str, Any]) -> Reference:
  """Reference of a `DiffusionModelUNet` config."""
  options = read_options(
    config,
    {
      'spatial_dims': ...,
      'in_channels': ...,
      'out_channels': ...,
      'num_res_blocks': (2, 2, 2, 2),
      'channels': (32, 64, 64, 64),
      'attention_levels': (False, False, True, True),
      'norm_num_groups': 32,
      'norm_eps': 1e-6,
      'resblock_updown': False,
      'num_head_channels': 8,
      'with_conditioning': False,
      'transformer_num_layers': 1,
      'cross_attention_dim': None,
      'num_class_embeds': None,
      'include_fc': True,
      'use_combined_linear': False,
    },
    {
      **_SAME_FUNCTION,
      **_MAISI_INPUTS,
      'dropout_cattn': ((0.0, 0), 'the transformers of ldm_jax have no dropout'),
    },
  )
  if options['with_conditioning'] != (options['cross_attention_dim'] is not None):
    raise ValueError(
      f'with_conditioning is {options["with_conditioning"]} while cross_attention_dim '
      f'is {options["cross_attention_dim"]}; give both or none, as MONAI requires.'
    )
  axes = _axes(options['spatial_dims'])
  context_dim = options['cross_attention_dim']
  module = UNet(
    in_channels=options['in_channels'],
    out_channels=options['out_channels'],
    channels=options['channels'],
    num_res_blocks=options['num_res_blocks'],
    kernels=(3,) * axes,
    attention_levels=options['attention_levels'],
    num_head_channels=options['num_head_channels'],
    norm_groups=options['norm_num_groups'],
    norm_eps=options['norm_eps'],
    context_dim=context_dim,
    num_transformer_layers=options['transformer_num_layers'],
    num_class_embeds=options['num_class_embeds'],
    resblock_updown=options['resblock_updown'],
    attention_projects=options['include_fc'],
  )
  size = (2 ** (len(options['channels']) - 1),) * axes
  x, t = examples((1, *size, options['in_channels']), (1,))
  context = None if context_dim is None else examples((1, 1, context_dim))[0]
  labels = None
  if options['num_class_embeds'] is not None:
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
  name = functools.partial(_name, combined=options['use_combined_linear'])
  return Reference(module, (x, t, context, labels), name)


def _name(
  path, kernel_axes, combined=False, autoencoder=False, double=lambda path: False
):
  """MONAI's name of one of our parameters."""
  *path, leaf = path
  words = [re.sub(rf'^({_LISTS})_(\d+)$', r'\1.\2', word) for word in path]
  # Convolutions are inside a wrapper, MAISI's inside two.
  if kernel_axes > 2 and words[-1] != 'deconv':
    words += ['conv'] * (1 + double(path))
  if autoencoder:
    words = ['nin_shortcut' if word == 'skip_connection' else word for word in words]
    if words[0] == 'decoder' and words[2:] == ['conv', 'conv'] and not double(path):
      words[2] = 'postconv'
  # The convolution of a downsampler is `op`, of an upsampler `postconv`.
  if 'downsampler' in words and words[words.index('downsampler') + 1] == 'conv':
    words[words.index('downsampler') + 1] = 'op'
  if 'upsampler' in words and words[words.index('upsampler') + 1] == 'conv':
    words[words.index('upsampler') + 1] = 'postconv'
  if combined and words[-1] in ('to_q', 'to_k', 'to_v') and 'attn2' not in words:
    words[-1] = 'qkv'
  leaf = {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight'}.get(leaf, leaf)
  return '.'.join([*words, leaf])


def _channels(config):
  """The config with MAISI's num_channels renamed to MONAI's channels."""
  return {'channels' if k == 'num_channels' else k: v for k, v in config.items()}


def _axes(spatial_dims):
  if spatial_dims not in (2, 3):
    raise ValueError(f'spatial_dims is {spatial_dims}, expected 2 or 3.')
  return spatial_dims
