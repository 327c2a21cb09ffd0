"""The networks that are compared: MONAI's configs, ours with the same weights.

Latents are (b,*space,c) here and (b,c,*space) there, a context is one token.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import schedules
from ldm_jax.models.interop import reference_monai

# Both sides multiply in the type of their arrays, and outputs must agree.
jax.config.update('jax_default_matmul_precision', 'float32')

CONTEXT_DIM, LATENT_CHANNELS = 64, 4
# What MONAI's inferer puts in the place of a dropped condition.
DROPPED = -1.0
BETAS = {'beta_start': 0.0015, 'beta_end': 0.0195}

UNET = {
  'spatial_dims': 3,
  'in_channels': LATENT_CHANNELS,
  'out_channels': LATENT_CHANNELS,
  'channels': (32, 64, 128),
  'attention_levels': (False, False, True),
  'num_res_blocks': 1,
  'num_head_channels': 32,
  'norm_num_groups': 32,
  'with_conditioning': True,
  'cross_attention_dim': CONTEXT_DIM,
}
TINY_UNET = {**UNET, 'channels': (8, 8, 16), 'norm_num_groups': 4} | {
  'num_head_channels': 8
}
AUTOENCODER = {
  'spatial_dims': 3,
  'in_channels': 1,
  'out_channels': 1,
  'channels': (16, 32, 64),
  'latent_channels': LATENT_CHANNELS,
  'num_res_blocks': 1,
  'attention_levels': (False, False, False),
  'norm_num_groups': 16,
  'with_encoder_nonlocal_attn': False,
  'with_decoder_nonlocal_attn': False,
}
TINY_AUTOENCODER = {**AUTOENCODER, 'channels': (4, 8), 'norm_num_groups': 4} | {
  'attention_levels': (False, False)
}


@dataclasses.dataclass(frozen=True)
class Conditioned:
  """Our UNet where the pipeline has a denoiser: attributes (b,k) become one token."""

  unet: object

  def apply(self, variables, z_t, t, attributes, drop):
    context = jnp.where(drop[:, None], DROPPED, attributes)[:, None]
    return self.unet.apply(variables, z_t, t, context)


def schedule():
  return schedules.schedule('scaled_linear', 1000, **BETAS)


def unet(config):
  return reference_monai.unet(config), config, 'DiffusionModelUNet'


def autoencoder(config):
  return reference_monai.autoencoder(config), config, 'AutoencoderKL'


def latents(size, batch):
  shape = (batch, *size, LATENT_CHANNELS)
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def contexts(batch):
  shape = (batch, CONTEXT_DIM)
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def peer_context(context, peer):
  return peer.torch.from_numpy(context[:, None]).to(peer.device)


def peer_scheduler():
  from monai.networks.schedulers import DDIMScheduler

  return DDIMScheduler(
    num_train_timesteps=1000,
    schedule='scaled_linear_beta',
    clip_sample=False,
    **BETAS,
  )


def unet_outputs(z, context, modules, params, found, peer):
  """Both sides' noise predicted for z (b,*space,c), context (b,k)."""
  t = np.linspace(0, 999, len(z)).astype(np.int32)
  ours = jax.jit(modules['unet'].apply)(
    {'params': params['unet']}, z, t, context[:, None]
  )
  with peer.torch.no_grad():
    theirs = found['unet'](
      peer.tensor(z),
      peer.torch.from_numpy(t).to(peer.device),
      peer_context(context, peer),
    )
  return np.asarray(ours), peer.array(theirs)


def autoencoder_outputs(x, modules, params, found, peer):
  """Both sides' reconstructions of x (b,*space,1) from the latent's mean."""
  ours = jax.jit(modules['autoencoder'].apply)({'params': params['autoencoder']}, x)[0]
  with peer.torch.no_grad():
    net = found['autoencoder']
    theirs = net.decode(net.encode(peer.tensor(x))[0])
  return np.asarray(ours), peer.array(theirs)
