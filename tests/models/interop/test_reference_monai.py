"""MONAI's own tables of networks: each has our counterpart, or a reason why not.

Configurations and shapes of [MONAI] tests/networks/nets/test_diffusion_model_unet.py
and test_autoencoderkl.py, 1.6. Nothing is computed here: shapes and names only, the
numbers are compared in test_convert.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from ldm_jax.models import convert
from ldm_jax.models.interop import reference_monai

LEVELS = {'channels': (8, 8, 8), 'norm_num_groups': 8, 'num_res_blocks': 1}
UNET = {'in_channels': 1, 'out_channels': 1, **LEVELS}
NOWHERE, LAST = (False, False, False), (False, False, True)
CONDITION = {'with_conditioning': True, 'cross_attention_dim': 3}
READING = {'attention_levels': LAST, **CONDITION, 'transformer_num_layers': 1}
# Options of each case, and the number of axes it is listed for.
UNETS = (
  ({'attention_levels': NOWHERE}, (2, 3)),
  ({'attention_levels': NOWHERE, 'num_res_blocks': (1, 1, 2)}, (2,)),
  ({'attention_levels': NOWHERE, 'resblock_updown': True}, (2, 3)),
  ({'attention_levels': LAST, 'num_head_channels': 8}, (2, 3)),
  (
    {'attention_levels': LAST, 'num_head_channels': 8, 'resblock_updown': True},
    (2, 3),
  ),
  ({'attention_levels': LAST, 'num_head_channels': 4}, (2, 3)),
  ({'attention_levels': (False, True, True), 'num_head_channels': (0, 2, 4)}, (2,)),
  ({'attention_levels': LAST, 'num_head_channels': (0, 0, 4)}, (3,)),
  ({'attention_levels': NOWHERE, 'in_channels': 6, 'out_channels': 3}, (2,)),
  (
    {
      'attention_levels': LAST,
      'in_channels': 6,
      'out_channels': 3,
      'norm_num_groups': 4,
    },
    (3,),
  ),
  ({**READING, 'num_head_channels': 4}, (2,)),
  ({**READING, 'num_head_channels': 4, 'resblock_updown': True}, (2,)),
  ({**READING, 'num_head_channels': 4, 'upcast_attention': True}, (2,)),
  ({**READING, 'num_head_channels': 8}, (2,)),
  ({**READING, 'channels': (16, 16, 16), 'norm_num_groups': 16}, (3,)),
  ({'attention_levels': LAST, 'num_head_channels': 8, 'num_class_embeds': 2}, (2,)),
)
UNET_CASES = [
  {'spatial_dims': axes, **UNET, **options} for options, both in UNETS for axes in both
]
PLAIN = {'with_encoder_nonlocal_attn': False, 'with_decoder_nonlocal_attn': False}
AUTOENCODER = {
  'in_channels': 1,
  'out_channels': 1,
  'channels': (4, 4, 4),
  'latent_channels': 4,
  'attention_levels': NOWHERE,
  'num_res_blocks': 1,
  'norm_num_groups': 4,
}
AUTOENCODERS = (
  (PLAIN, (2, 3)),
  ({}, (2,)),
  ({'num_res_blocks': (1, 1, 2)}, (2,)),
  ({'with_encoder_nonlocal_attn': False}, (2,)),
  ({'attention_levels': LAST}, (2, 3)),
)
# Each of them a second time, as MONAI runs them.
OTHERWISE = {'use_checkpoint': True, 'use_convtranspose': True}
AUTOENCODER_CASES = [
  {'spatial_dims': axes, **AUTOENCODER, **options, **more}
  for options, both in AUTOENCODERS
  for axes in both
  for more in ({}, OTHERWISE)
]
WRONG = (
  ({'channels': (8, 8, 12)}, 'groups'),
  ({'num_head_channels': (0, 2)}, 'num_head_channels has 2'),
  ({'num_res_blocks': (1, 1)}, 'num_res_blocks has 2'),
  ({'attention_levels': (False, False)}, 'attention_levels has 2'),
  ({'attention_levels': LAST, 'with_conditioning': True}, 'cross_attention_dim'),
  ({**READING, 'num_head_channels': 4, 'dropout_cattn': 3.0}, 'dropout_cattn'),
)
WRONG_AUTOENCODERS = (
  ({'channels': (24, 24, 24), 'norm_num_groups': 16}, 'groups'),
  ({'attention_levels': (False, False)}, 'attention_levels has 2'),
  ({'num_res_blocks': (8, 8)}, 'num_res_blocks has 2'),
)


def name_of(config):
  usual = {**UNET, **AUTOENCODER, **READING}
  own = [f'{k}={v}' for k, v in config.items() if usual.get(k) != v]
  return ','.join(own).replace(' ', '')


def shape_of(reference, *inputs):
  """Shapes of what the module returns for abstract inputs."""
  flat = {
    path: jax.ShapeDtypeStruct(shape, jnp.float32)
    for path, shape in reference.shapes().items()
  }
  params = {'params': unflatten_dict(flat)}
  found = jax.eval_shape(reference.module.apply, params, *inputs)
  return jax.tree.map(jnp.shape, found)


def names_and_shapes(reference):
  """{tensor name: shape} as the reference would save our parameters."""
  flat = {path: np.zeros(shape, 'f4') for path, shape in reference.shapes().items()}
  tensors = convert.to_theirs(reference, unflatten_dict(flat))
  return {name: value.shape for name, value in tensors.items()}


def theirs(name, config):
  """The same of MONAI's network; no memory is taken."""
  torch = pytest.importorskip('torch', reason='comes with the extra "interop"')
  nets = pytest.importorskip('monai.networks.nets', reason='as does monai')
  with torch.device('meta'):
    network = getattr(nets, name)(**config)
  return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize('config', UNET_CASES, ids=name_of)
def test_each_unet_of_the_tables_has_monais_tensors(config):
  reference = reference_monai.unet(config)
  assert names_and_shapes(reference) == theirs('DiffusionModelUNet', config)


# Their outputs are compared with MONAI's in test_convert.py; here what is not there.
@pytest.mark.parametrize('config', UNET_CASES[::5], ids=name_of)
def test_a_unet_of_the_tables_gives_back_the_space_it_is_given(config):
  reference = reference_monai.unet(config)
  space = (16,) * config['spatial_dims']
  labels = (
    jax.ShapeDtypeStruct((1,), jnp.int32) if 'num_class_embeds' in config else None
  )
  context = jnp.zeros((1, 1, 3)) if 'cross_attention_dim' in config else None
  x = jax.ShapeDtypeStruct((1, *space, config['in_channels']), jnp.float32)
  y = shape_of(reference, x, jnp.zeros(1), context, labels)
  assert y == (1, *space, config['out_channels'])


@pytest.mark.parametrize('config', AUTOENCODER_CASES, ids=name_of)
def test_each_autoencoder_of_the_tables_has_monais_tensors(config):
  reference = reference_monai.autoencoder(config)
  assert names_and_shapes(reference) == theirs('AutoencoderKL', config)


@pytest.mark.parametrize('config', AUTOENCODER_CASES[::5], ids=name_of)
def test_an_autoencoder_of_the_tables_has_latents_of_a_quarter_of_each_axis(config):
  reference = reference_monai.autoencoder(config)
  axes = config['spatial_dims']
  x = jax.ShapeDtypeStruct((1, *(16,) * axes, 1), jnp.float32)
  latent = (1, *(4,) * axes, 4)
  assert shape_of(reference, x) == (x.shape, latent, latent)


@pytest.mark.parametrize(('options', 'says'), WRONG)
def test_a_unet_that_monai_refuses_is_refused_here(options, says):
  config = {'spatial_dims': 2, **UNET, 'attention_levels': NOWHERE, **options}
  with pytest.raises(ValueError, match=says):
    reference_monai.unet(config).shapes()


@pytest.mark.parametrize(('options', 'says'), WRONG_AUTOENCODERS)
def test_an_autoencoder_that_monai_refuses_is_refused_here(options, says):
  with pytest.raises(ValueError, match=says):
    reference_monai.autoencoder({'spatial_dims': 2, **AUTOENCODER, **options}).shapes()
