"""Weights of MONAI and diffusers as our modules with their parameters, and back.

  module, params = convert.from_monai('AutoencoderKL', config, tensors)
  z_mean, z_std = module.apply({'params': params}, x, method='encode')
  tensors = convert.to_monai('AutoencoderKL', module, params)

Arrays are channels-last: x (b,d,h,w,c) in 3D and (b,h,w,c) in 2D. The UNet is called as
module.apply({'params': params}, x, t, context, class_labels). How names and kernels
correspond is in `interop.correspondence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from ldm_jax.models.interop import (
  correspondence,
  reference_diffusers,
  reference_monai,
)
from ldm_jax.types import Array, PyTree

Reference = correspondence.Reference
to_ours, to_theirs = correspondence.to_ours, correspondence.to_theirs
# Library -> class of the network -> config -> Reference.
BUILDERS: dict[str, dict[str, Callable[[Mapping[str, Any]], Reference]]] = {
  'monai': {
    'AutoencoderKL': reference_monai.autoencoder,
    'DiffusionModelUNet': reference_monai.unet,
    'AutoencoderKlMaisi': reference_monai.maisi_autoencoder,
    'DiffusionModelUNetMaisi': reference_monai.maisi_unet,
  },
  'diffusers': {
    'AutoencoderKL': reference_diffusers.autoencoder,
    'UNet2DConditionModel': reference_diffusers.unet,
  },
}
# Our option -> MONAI's, of modules that MONAI's networks correspond to.
SHARED = {
  'in_channels': 'in_channels',
  'out_channels': 'out_channels',
  'channels': 'channels',
  'num_res_blocks': 'num_res_blocks',
  'attention_levels': 'attention_levels',
  'norm_groups': 'norm_num_groups',
  'norm_eps': 'norm_eps',
  'attention_projects': 'include_fc',
}
OF_UNET = {
  'num_head_channels': 'num_head_channels',
  'context_dim': 'cross_attention_dim',
  'num_transformer_layers': 'transformer_num_layers',
  'num_class_embeds': 'num_class_embeds',
  'resblock_updown': 'resblock_updown',
}


def from_monai(
  kind: str, config: Mapping[str, Any], tensors: Mapping[str, Array]
) -> tuple[nn.Module, PyTree]:
  """Our module and its nested parameters of a network of MONAI.

  Args:
    kind: 'AutoencoderKL', 'DiffusionModelUNet' or one of MAISI's, see BUILDERS.
    config: arguments of its constructor.
    tensors: its state_dict as NumPy arrays.

  Raises:
    ValueError: an unknown kind, an option without a counterpart, or tensors that do not
      belong to the config; they are listed.
  """
  return _from('monai', kind, config, tensors)


def from_diffusers(
  kind: str, config: Mapping[str, Any], tensors: Mapping[str, Array]
) -> tuple[nn.Module, PyTree]:
  """As `from_monai`, of a network of diffusers: its config.json and state_dict."""
  return _from('diffusers', kind, config, tensors)


def to_monai(kind: str, module: nn.Module, params: PyTree) -> dict[str, np.ndarray]:
  """{name: array} of MONAI's network from our module and its nested parameters.

  Args:
    kind: 'AutoencoderKL' or 'DiffusionModelUNet', with separate q, k and v.
    module: of `from_monai`, or one with options that MONAI's network has, too.
    params: of the module.

  Raises:
    ValueError: a module that MONAI's network does not correspond to, or parameters that
      are not the module's.
  """
  reference = _builder('monai', kind)(_config_of(kind, module))
  if reference.module != module:
    wrong = sorted(
      name
      for name in module.__dataclass_fields__
      if name not in ('parent', 'name')
      and getattr(reference.module, name, None) != getattr(module, name)
    )
    raise ValueError(
      f'The module is no {kind} of MONAI: it differs in {", ".join(wrong)}. Expected '
      'one of from_monai.'
    )
  return to_theirs(reference, params)


def _from(library, kind, config, tensors):
  reference = _builder(library, kind)(config)
  return reference.module, to_ours(reference, tensors)


def _builder(library, kind):
  known = BUILDERS[library]
  if kind not in known:
    raise ValueError(
      f'kind is {kind!r}; of {library} are known {", ".join(known)}. Give one of them.'
    )
  return known[kind]


def _config_of(kind, module):
  """MONAI's config of a module, as far as its options have a counterpart."""
  options = {'AutoencoderKL': SHARED, 'DiffusionModelUNet': {**SHARED, **OF_UNET}}
  if kind not in options:
    raise ValueError(
      f'kind is {kind!r}; to MONAI go {", ".join(options)}. For others use '
      'ldm-jax-convert --to=monai with the config.'
    )
  config = {
    theirs: getattr(module, ours)
    for ours, theirs in options[kind].items()
    if hasattr(module, ours)
  }
  kernels = getattr(module, 'kernels', ())
  config['spatial_dims'] = len(kernels) if kernels else 3
  if kind == 'DiffusionModelUNet':
    return {
      **config,
      'with_conditioning': config.get('cross_attention_dim') is not None,
    }
  encoder, decoder = getattr(module, 'nonlocal_attention', (True, True))
  return {
    **config,
    'latent_channels': getattr(module, 'latent_channels', 3),
    'with_encoder_nonlocal_attn': encoder,
    'with_decoder_nonlocal_attn': decoder,
    'use_convtranspose': getattr(module, 'upsampling', '') == 'transposed',
  }
