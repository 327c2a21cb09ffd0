"""diffusers' AutoencoderKL and UNet2DConditionModel as our modules: config, names.

The layout of Stable Diffusion 1.x, at any width; options that change the function and
have no counterpart here are errors that give the reason.
"""

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

_NOT_HERE = 'it has no counterpart in ldm_jax'
_NOTES = ('sample_size', 'scaling_factor', 'force_upcast')
_UNET_FIXED = {
  'center_input_sample': (False,),
  'flip_sin_to_cos': (True,),
  'freq_shift': (0,),
  'mid_block_type': ('UNetMidBlock2DCrossAttn',),
  'only_cross_attention': (False,),
  'downsample_padding': (1,),
  'mid_block_scale_factor': (1, 1.0),
  'dropout': (0.0, 0),
  'act_fn': ('silu', 'swish'),
  'reverse_transformer_layers_per_block': (None,),
  'encoder_hid_dim': (None,),
  'encoder_hid_dim_type': (None,),
  'dual_cross_attention': (False,),
  'class_embed_type': (None,),
  'addition_embed_type': (None,),
  'addition_time_embed_dim': (None,),
  'addition_embed_type_num_heads': (64,),
  'resnet_time_scale_shift': ('default',),
  'resnet_skip_time_act': (False,),
  'resnet_out_scale_factor': (1.0, 1),
  'time_embedding_type': ('positional',),
  'time_embedding_dim': (None,),
  'time_embedding_act_fn': (None,),
  'timestep_post_act': (None,),
  'time_cond_proj_dim': (None,),
  'conv_in_kernel': (3,),
  'conv_out_kernel': (3,),
  'projection_class_embeddings_input_dim': (None,),
  'attention_type': ('default',),
  'class_embeddings_concat': (False,),
  'mid_block_only_cross_attention': (None, False),
  'cross_attention_norm': (None,),
}


def autoencoder(config: Mapping[str, Any]) -> Reference:
  """Reference of an `AutoencoderKL` config.json."""
  options = read_options(
    {key: value for key, value in config.items() if key not in _NOTES},
    {
      'in_channels': 3,
      'out_channels': 3,
      'block_out_channels': (64,),
      'down_block_types': ('DownEncoderBlock2D',),
      'up_block_types': ('UpDecoderBlock2D',),
      'layers_per_block': 1,
      'latent_channels': 4,
      'norm_num_groups': 32,
      'mid_block_add_attention': True,
    },
    {
      'act_fn': (('silu', 'swish'), 'ldm_jax uses silu'),
      'use_quant_conv': ((True,), 'ldm_jax always has the convolution'),
      'use_post_quant_conv': ((True,), 'ldm_jax always has the convolution'),
      'shift_factor': ((None,), 'normalise latents by their statistics instead'),
      'latents_mean': ((None,), 'normalise latents by their statistics instead'),
      'latents_std': ((None,), 'normalise latents by their statistics instead'),
    },
  )
  _require_types(options['down_block_types'], 'DownEncoderBlock2D')
  _require_types(options['up_block_types'], 'UpDecoderBlock2D')
  if not options['mid_block_add_attention']:
    raise ValueError('mid_block_add_attention = False is not supported: ' + _NOT_HERE)
  levels, latent = len(options['block_out_channels']), options['latent_channels']
  module = Autoencoder(
    in_channels=options['in_channels'],
    out_channels=options['out_channels'],
    channels=options['block_out_channels'],
    latent_channels=latent,
    num_res_blocks=options['layers_per_block'],
    decoder_extra_blocks=1,
    kernels=(3, 3),
    nonlocal_attention=True,
    norm_groups=options['norm_num_groups'],
    norm_eps=1e-6,
    head_channels=(2 * latent, latent),
    last_activation=True,
    out_activation=None,
  )
  sequence = _chain_names(levels, options['layers_per_block'])
  inputs = examples((1, *(2 ** (levels - 1),) * 2, options['in_channels']))

  def name(path, kernel_axes):
    del kernel_axes
    *path, leaf = path
    if path[0].startswith('quant_conv'):
      path = ['quant_conv']  # the mean, then the logarithm of the variance
    elif path[0] in sequence:
      path = [path[0], sequence[path[0]][path[1]], *path[2:]]
    text = '.'.join(path).replace('skip_connection', 'conv_shortcut')
    if 'attentions' in text:
      text = text.replace('.attn.', '.').replace('out_proj', 'to_out.0')
      text = re.sub(r'\.norm$', '.group_norm', text)
    return f'{text}.{_leaf(leaf)}'

  return Reference(module, inputs, name, lambda name: 'attentions' in name)


def unet(config: Mapping[str, Any]) -> Reference:
  """Reference of a `UNet2DConditionModel` config.json."""
  options = read_options(
    {key: value for key, value in config.items() if key not in _NOTES},
    {
      'in_channels': 4,
      'out_channels': 4,
      'block_out_channels': (320, 640, 1280, 1280),
      'down_block_types': (*('CrossAttnDownBlock2D',) * 3, 'DownBlock2D'),
      'up_block_types': ('UpBlock2D', *('CrossAttnUpBlock2D',) * 3),
      'layers_per_block': 2,
      'norm_num_groups': 32,
      'norm_eps': 1e-5,
      'cross_attention_dim': 1280,
      'transformer_layers_per_block': 1,
      'attention_head_dim': 8,
      'num_attention_heads': None,
      'use_linear_projection': False,
      'num_class_embeds': None,
    },
    {
      **{key: (allowed, _NOT_HERE) for key, allowed in _UNET_FIXED.items()},
      'upcast_attention': ((True, False, None), ''),
    },
  )
  for key in ('cross_attention_dim', 'transformer_layers_per_block'):
    if not isinstance(options[key], int):
      raise ValueError(
        f'{key} = {options[key]!r} is not supported: expected one int for all levels.'
      )
  channels = options['block_out_channels']
  attends = [kind == 'CrossAttnDownBlock2D' for kind in options['down_block_types']]
  _require_types(options['down_block_types'], 'CrossAttnDownBlock2D', 'DownBlock2D')
  _require_types(options['up_block_types'], 'CrossAttnUpBlock2D', 'UpBlock2D')
  if attends[::-1] != [
    kind == 'CrossAttnUpBlock2D' for kind in options['up_block_types']
  ]:
    raise ValueError(
      f'down_block_types {list(options["down_block_types"])} and up_block_types '
      f'{list(options["up_block_types"])} are not supported: expected attention at the '
      'same levels in both.'
    )
  # diffusers' attention_head_dim is the number of heads without num_attention_heads.
  heads = options['num_attention_heads'] or options['attention_head_dim']
  heads = (heads,) * len(channels) if isinstance(heads, int) else tuple(heads)
  module = UNet(
    in_channels=options['in_channels'],
    out_channels=options['out_channels'],
    channels=channels,
    num_res_blocks=options['layers_per_block'],
    kernels=(3, 3),
    attention_levels=tuple(attends),
    num_head_channels=tuple(c // h for c, h in zip(channels, heads, strict=True)),
    norm_groups=options['norm_num_groups'],
    norm_eps=options['norm_eps'],
    attention_norm_eps=1e-6,
    context_dim=options['cross_attention_dim'],
    num_transformer_layers=options['transformer_layers_per_block'],
    num_class_embeds=options['num_class_embeds'],
  )
  x, t, context = examples(
    (1, *(2 ** (len(channels) - 1),) * 2, options['in_channels']),
    (1,),
    (1, 1, options['cross_attention_dim']),
  )
  labels = None
  if options['num_class_embeds'] is not None:
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
  linear = options['use_linear_projection']
  return Reference(
    module,
    (x, t, context, labels),
    _unet_name,
    lambda name: linear and ('.proj_in.' in name or '.proj_out.' in name),
  )


_UNET_RULES = (
  (r'^time_embed_0', 'time_embedding.linear_1'),
  (r'^time_embed_2', 'time_embedding.linear_2'),
  (r'^out_0', 'conv_norm_out'),
  (r'^out_2', 'conv_out'),
  (r'^middle_block\.resnet_1', 'mid_block.resnets.0'),
  (r'^middle_block\.resnet_2', 'mid_block.resnets.1'),
  (r'^middle_block\.attention\b', 'mid_block.attentions.0'),
  (r'\b(down_blocks|up_blocks|resnets|attentions|transformer_blocks)_(\d+)', r'\1.\2'),
  (r'downsampler\.conv', 'downsamplers.0.conv'),
  (r'upsampler\.conv', 'upsamplers.0.conv'),
  (r'skip_connection', 'conv_shortcut'),
  (r'out_proj', 'to_out.0'),
  (r'ff\.linear1', 'ff.net.0.proj'),
  (r'ff\.linear2', 'ff.net.2'),
)


def _unet_name(path, kernel_axes):
  del kernel_axes
  text = '.'.join(path[:-1])
  for pattern, theirs in _UNET_RULES:
    text = re.sub(pattern, theirs, text)
  return f'{text}.{_leaf(path[-1])}'


def _chain_names(levels, layers):
  """diffusers' names of the modules in our encoder's and decoder's `Chain`."""
  middle = ['mid_block.resnets.0', 'mid_block.attentions.0', 'mid_block.resnets.1']
  # The activation has no parameters but a number in the chain.
  last = ['conv_norm_out', 'conv_act', 'conv_out']

  def blocks(direction, number):
    for i in range(levels):
      for j in range(number):
        yield f'{direction}_blocks.{i}.resnets.{j}'
      if i < levels - 1:
        yield f'{direction}_blocks.{i}.{direction}samplers.0'

  chains = {
    'encoder': ['conv_in', *blocks('down', layers), *middle, *last],
    'decoder': ['conv_in', *middle, *blocks('up', layers + 1), *last],
  }
  return {
    side: {f'blocks_{i}': name for i, name in enumerate(names)}
    for side, names in chains.items()
  }


def _leaf(leaf):
  return 'bias' if leaf == 'bias' else 'weight'


def _require_types(kinds, *known):
  other = sorted(set(kinds) - set(known))
  if other:
    raise ValueError(
      f'Blocks of the type {", ".join(other)} are not supported, expected '
      f'{" or ".join(known)}.'
    )
