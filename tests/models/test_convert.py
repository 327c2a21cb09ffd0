"""Reference networks and ours, one set of weights: same function, same bits back."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from ldm_jax.models import convert
from ldm_jax.models.interop import reference_diffusers, reference_monai

UNET = {
  'spatial_dims': 3,
  'in_channels': 2,
  'out_channels': 2,
  'channels': (4, 8),
  'attention_levels': (False, True),
  'num_res_blocks': 1,
  'num_head_channels': 4,
  'norm_num_groups': 4,
}
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
DIFFUSERS_UNET = {
  'block_out_channels': (8, 16),
  'down_block_types': ('CrossAttnDownBlock2D', 'DownBlock2D'),
  'up_block_types': ('UpBlock2D', 'CrossAttnUpBlock2D'),
  'layers_per_block': 1,
  'norm_num_groups': 4,
  'cross_attention_dim': 6,
  'attention_head_dim': 2,
}
DIFFUSERS_AUTOENCODER = {
  'in_channels': 1,
  'out_channels': 1,
  'block_out_channels': (4, 8),
  'down_block_types': ('DownEncoderBlock2D',) * 2,
  'up_block_types': ('UpDecoderBlock2D',) * 2,
  'layers_per_block': 1,
  'norm_num_groups': 4,
}
INTEROP = 'comes with the extra "interop"'


def cases(table):
  return pytest.mark.parametrize('options', table.values(), ids=table)


@pytest.fixture
def torch():
  return pytest.importorskip('torch', reason=INTEROP)


@pytest.fixture
def drawn_weights(torch):
  """Fills a torch network with random numbers, no zeros; returns {name: array}."""

  def draw(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
      for value in network.parameters():
        value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    network.eval()
    return {name: value.numpy() for name, value in network.state_dict().items()}

  return draw


def imported(reference, tensors):
  """Our parameters; checks that the way back gives every tensor bit for bit."""
  params = convert.to_ours(reference, tensors)
  back = convert.to_theirs(reference, params)
  assert set(back) == set(tensors)
  for name, value in tensors.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
  return params


def inputs(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def last(x):
  return np.moveaxis(x, 1, -1)


def close(ours, theirs):
  theirs = theirs.detach().numpy()
  assert np.abs(first(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


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


@pytest.mark.parametrize('linear', [False, True])
def test_a_unet_of_diffusers_is_ours(torch, drawn_weights, linear):
  diffusers = pytest.importorskip('diffusers', reason=INTEROP)
  config = {**DIFFUSERS_UNET, 'use_linear_projection': linear}
  network = diffusers.UNet2DConditionModel(sample_size=8, **config)
  reference = reference_diffusers.unet(config)
  params = imported(reference, drawn_weights(network))
  x, t, context = inputs(2, 4, 8, 8), np.array([3, 700]), inputs(2, 5, 6)
  theirs = network(*map(torch.tensor, (x, t, context))).sample
  close(
    jax.jit(reference.module.apply)({'params': params}, last(x), t, context), theirs
  )


def test_an_autoencoder_of_diffusers_is_ours(torch, drawn_weights):
  diffusers = pytest.importorskip('diffusers', reason=INTEROP)
  network = diffusers.AutoencoderKL(**DIFFUSERS_AUTOENCODER)
  reference = reference_diffusers.autoencoder(DIFFUSERS_AUTOENCODER)
  params = imported(reference, drawn_weights(network))
  x = inputs(1, 1, 8, 8)
  reconstruction, mean, std = jax.jit(reference.module.apply)(
    {'params': params}, last(x)
  )
  found = network.encode(torch.tensor(x)).latent_dist
  close(mean, found.mean)
  close(std, found.std)
  close(reconstruction, network.decode(found.mean).sample)


def test_the_names_of_maisi_are_known(torch, drawn_weights):
  maisi = pytest.importorskip(
    'monai.apps.generation.maisi.networks.autoencoderkl_maisi', reason=INTEROP
  )
  config = {key: value for key, value in AUTOENCODER.items() if key != 'channels'}
  config |= {'num_channels': (4, 8), 'num_res_blocks': (1, 1), 'num_splits': 1}
  network = maisi.AutoencoderKlMaisi(**config)
  imported(reference_monai.maisi_autoencoder(config), drawn_weights(network))


def zeros(reference):
  """Parameters and tensors of the right names and shapes, without the reference."""
  nested = unflatten_dict(
    {path: np.zeros(shape) for path, shape in reference.shapes().items()}
  )
  return nested, convert.to_theirs(reference, nested)


def test_weights_that_do_not_fit_are_listed():
  reference = reference_monai.unet(UNET)
  _, tensors = zeros(reference)
  del tensors['out.0.weight']
  tensors['conv_in.conv.weight'] = np.zeros((4, 3, 3, 3, 3))
  tensors['extra'] = np.zeros(1)
  with pytest.raises(ValueError) as error:
    convert.to_ours(reference, tensors)
  for part in ('unknown: extra', 'missing: out.0.weight', '(4, 3, 3, 3, 3)'):
    assert part in str(error.value)


def test_parameters_that_do_not_fit_are_listed():
  reference = reference_monai.unet(UNET)
  nested, _ = zeros(reference)
  nested['extra'] = {'bias': np.zeros(1)}
  del nested['conv_in']['bias']
  with pytest.raises(ValueError, match=r'extra/bias.*conv_in/bias'):
    convert.to_theirs(reference, nested)


@pytest.mark.parametrize(
  ('build', 'config', 'says'),
  [
    (reference_monai.unet, {**UNET, 'dropout_cattn': 0.1}, 'dropout'),
    (reference_monai.unet, {**UNET, 'chanels': 3}, 'chanels'),
    (reference_monai.unet, {**UNET, 'spatial_dims': 1}, 'spatial_dims'),
    (reference_monai.unet, {**UNET, 'with_conditioning': True}, 'give both'),
    (reference_monai.autoencoder, {}, 'spatial_dims is missing'),
    (
      reference_diffusers.unet,
      {**DIFFUSERS_UNET, 'class_embed_type': 'timestep'},
      'class_embed_type',
    ),
    (
      reference_diffusers.unet,
      {**DIFFUSERS_UNET, 'up_block_types': ('UpBlock2D', 'UpBlock2D')},
      'same levels',
    ),
  ],
)
def test_options_without_a_counterpart_are_refused_with_the_reason(build, config, says):
  with pytest.raises(ValueError, match=says):
    build(config)
