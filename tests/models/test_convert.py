"""Reference networks and ours, one set of weights: same function, same bits back."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from ldm_jax.models import convert
from ldm_jax.models.interop import reference_monai
from tests.models.interop.parity import UNET, close, imported, inputs, last

CONDITION = {'with_conditioning': True, 'cross_attention_dim': 3}
UNETS = {
  'plain': {},
  'flat': {'spatial_dims': 2, 'num_res_blocks': (2, 1)},
  'conditioned': {**CONDITION, 'transformer_num_layers': 2},
  'attention at the first level': {
    'attention_levels': (True, False),
    'num_head_channels': (2, 8),
  },
  'resampled in residual blocks': {'resblock_updown': True, 'norm_eps': 1e-5},
  'classes, one wide head': {'num_class_embeds': 3, 'num_head_channels': (0, 8)},
  'no projection, odd channels': {
    **CONDITION,
    'channels': (3, 9),
    'norm_num_groups': 3,
    'num_head_channels': (3, 3),
    'include_fc': False,
  },
  'combined q, k and v': {'use_combined_linear': True, **CONDITION},
}
AUTOENCODER = {
  'spatial_dims': 3,
  'in_channels': 1,
  'out_channels': 2,
  'channels': (4, 8),
  'attention_levels': (False, False),
  'num_res_blocks': 1,
  'latent_channels': 3,
  'norm_num_groups': 4,
}
AUTOENCODERS = {
  'attention everywhere': {'attention_levels': (True, True), 'num_res_blocks': (1, 2)},
  'flat, in the encoder only': {
    'spatial_dims': 2,
    'with_decoder_nonlocal_attn': False,
    'use_combined_linear': True,
  },
  'transposed convolutions': {
    'use_convtranspose': True,
    'with_encoder_nonlocal_attn': False,
    'include_fc': False,
  },
}
INTEROP = 'comes with the extra "interop"'


def cases(table):
  return pytest.mark.parametrize('options', table.values(), ids=table)


@pytest.mark.parametrize(
  ('name', 'build'),
  [
    ('unet_tiny', reference_monai.unet),
    ('ae_tiny_attn', reference_monai.autoencoder),
  ],
)
def test_reference_weights_go_through_bit_for_bit(golden, name, build):
  config = json.loads((golden / f'{name}.json').read_text())['config']
  arrays = np.load(golden / f'{name}.npz')
  imported(build(config), {k[2:]: arrays[k] for k in arrays.files if k[:2] == 'w/'})


@cases(UNETS)
def test_a_unet_of_monai_is_ours(torch, drawn_weights, options):
  nets = pytest.importorskip('monai.networks.nets', reason=INTEROP)
  config = {**UNET, **options}
  network = nets.DiffusionModelUNet(**config)
  reference = reference_monai.unet(config)
  params = imported(reference, drawn_weights(network))
  x, t = inputs(2, 2, *(4,) * config['spatial_dims']), np.array([3, 700])
  context = inputs(2, 5, 3) if config.get('with_conditioning') else None
  labels = np.array([2, 0]) if 'num_class_embeds' in config else None
  as_torch = lambda value: None if value is None else torch.tensor(value)
  theirs = network(*map(as_torch, (x, t, context, labels)))
  ours = jax.jit(reference.module.apply)(
    {'params': params}, last(x), t, context, labels
  )
  close(ours, theirs)


@cases(AUTOENCODERS)
def test_an_autoencoder_of_monai_is_ours(torch, drawn_weights, options):
  nets = pytest.importorskip('monai.networks.nets', reason=INTEROP)
  config = {**AUTOENCODER, **options}
  network = nets.AutoencoderKL(**config)
  reference = reference_monai.autoencoder(config)
  params = imported(reference, drawn_weights(network))
  x = inputs(1, 1, *(8,) * config['spatial_dims'])
  reconstruction, mean, std = jax.jit(reference.module.apply)(
    {'params': params}, last(x)
  )
  theirs_mean, theirs_std = network.encode(torch.tensor(x))
  close(mean, theirs_mean)
  close(std, theirs_std)
  close(reconstruction, network.decode(theirs_mean))


def test_the_names_of_maisi_are_known(torch, drawn_weights):
  maisi = pytest.importorskip(
    'monai.apps.generation.maisi.networks.autoencoderkl_maisi', reason=INTEROP
  )
  config = {key: value for key, value in AUTOENCODER.items() if key != 'channels'}
  config |= {'num_channels': (4, 8), 'num_res_blocks': (1, 1), 'num_splits': 1}
  network = maisi.AutoencoderKlMaisi(**config)
  imported(reference_monai.maisi_autoencoder(config), drawn_weights(network))


@pytest.mark.parametrize(
  ('build', 'config', 'says'),
  [
    (reference_monai.unet, {**UNET, 'dropout_cattn': 0.1}, 'dropout'),
    (reference_monai.unet, {**UNET, 'chanels': 3}, 'chanels'),
    (reference_monai.unet, {**UNET, 'spatial_dims': 1}, 'spatial_dims'),
    (reference_monai.unet, {**UNET, 'with_conditioning': True}, 'give both'),
    (reference_monai.autoencoder, {}, 'spatial_dims is missing'),
  ],
)
def test_options_without_a_counterpart_are_refused_with_the_reason(build, config, says):
  with pytest.raises(ValueError, match=says):
    build(config)


@pytest.mark.parametrize(
  ('kind', 'config', 'shape'),
  [
    ('AutoencoderKL', {**AUTOENCODER, 'spatial_dims': 2}, (1, 4, 4, 1)),
    ('DiffusionModelUNet', {**UNET, **CONDITION, 'spatial_dims': 2}, None),
  ],
)
def test_module_and_params_of_monai_give_the_same_tensors_back(kind, config, shape):
  reference = convert.BUILDERS['monai'][kind](config)
  rng = np.random.default_rng(0)
  nested = unflatten_dict(
    {
      path: rng.normal(size=shape).astype(np.float32)
      for path, shape in reference.shapes().items()
    }
  )
  tensors = convert.to_theirs(reference, nested)
  module, params = convert.from_monai(kind, config, tensors)
  back = convert.to_monai(kind, module, params)
  assert back.keys() == tensors.keys()
  assert all(np.array_equal(back[name], tensors[name]) for name in tensors)
  if shape:
    x = np.ones(shape, np.float32)
    mean, std = module.apply({'params': params}, x, method='encode')
    assert mean.shape == std.shape == (1, 2, 2, 3)


def test_a_kind_or_module_that_monai_has_not_is_refused():
  with pytest.raises(ValueError, match='known AutoencoderKL, DiffusionModelUNet'):
    convert.from_monai('VAE', AUTOENCODER, {})
  module = reference_monai.unet(UNET).module.clone(middle_attention=False)
  with pytest.raises(ValueError, match='differs in middle_attention'):
    convert.to_monai('DiffusionModelUNet', module, {})
