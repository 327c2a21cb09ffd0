"""Networks of diffusers and ours, one set of weights: same function, same bits back."""

import jax
import numpy as np
import pytest

from ldm_jax.models.interop import reference_diffusers
from tests.models.interop.parity import close, imported, inputs, last

INTEROP = 'comes with the extra "interop"'
UNET = {
  'block_out_channels': (8, 16),
  'down_block_types': ('CrossAttnDownBlock2D', 'DownBlock2D'),
  'up_block_types': ('UpBlock2D', 'CrossAttnUpBlock2D'),
  'layers_per_block': 1,
  'norm_num_groups': 4,
  'cross_attention_dim': 6,
  'attention_head_dim': 2,
}
AUTOENCODER = {
  'in_channels': 1,
  'out_channels': 1,
  'block_out_channels': (4, 8),
  'down_block_types': ('DownEncoderBlock2D',) * 2,
  'up_block_types': ('UpDecoderBlock2D',) * 2,
  'layers_per_block': 1,
  'norm_num_groups': 4,
}


@pytest.mark.parametrize('linear', [False, True])
def test_a_unet_of_diffusers_is_ours(torch, drawn_weights, linear):
  diffusers = pytest.importorskip('diffusers', reason=INTEROP)
  config = {**UNET, 'use_linear_projection': linear}
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
  network = diffusers.AutoencoderKL(**AUTOENCODER)
  reference = reference_diffusers.autoencoder(AUTOENCODER)
  params = imported(reference, drawn_weights(network))
  x = inputs(1, 1, 8, 8)
  reconstruction, mean, std = jax.jit(reference.module.apply)(
    {'params': params}, last(x)
  )
  found = network.encode(torch.tensor(x)).latent_dist
  close(mean, found.mean)
  close(std, found.std)
  close(reconstruction, network.decode(found.mean).sample)


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    ({'class_embed_type': 'timestep'}, 'class_embed_type'),
    ({'up_block_types': ('UpBlock2D', 'UpBlock2D')}, 'same levels'),
  ],
)
def test_options_without_a_counterpart_are_refused_with_the_reason(change, says):
  with pytest.raises(ValueError, match=says):
    reference_diffusers.unet({**UNET, **change})
