"""Sampling with 50 DDIM steps and decoding, and decoding alone, ours beside MONAI's.

    python benchmarks/sampling.py [--device=cuda] [--cases=NAME,...] [--repeats=11]

Ours is what the stage `sample` runs (`synthesis.generate`), MONAI's is its
`LatentDiffusionInferer`; both end with the volumes in the host's memory.
"""

import functools

import common
import jax
import networks
import numpy as np

from ldm_jax.diffusion import solvers
from ldm_jax.synthesis import generate

GUIDANCE = 3.0


def cases(quick=False):
  """{name: Case}: three batches with and without guidance, and the decoder."""
  if quick:
    tiny = networks.TINY_UNET, networks.TINY_AUTOENCODER
    return {
      'ddim_tiny': sampler((8, 8, 4), 2, GUIDANCE, 3, *tiny),
      'decode_tiny': decoder((8, 8, 8), 1, tiny[1]),
    }
  found = {
    f'ddim_50_batch_{batch}{"_guided" * (guidance != 1)}': sampler(
      (16, 16, 8), batch, guidance
    )
    for guidance in (1.0, GUIDANCE)
    for batch in (1, 2, 8)
  }
  return {**found, 'decode_64x64x32_batch_2': decoder((16, 16, 8), 2)}


def sampler(
  size,
  batch,
  guidance,
  num_steps=50,
  unet=networks.UNET,
  autoencoder=networks.AUTOENCODER,
):
  context = networks.contexts(batch)
  key = jax.random.key(0)

  def our_volumes(modules, params):
    denoiser = networks.Conditioned(modules['unet'])
    sample = generate.make_sampler(
      lambda params, *inputs: denoiser.apply({'params': params}, *inputs),
      networks.schedule(),
      (*size, networks.LATENT_CHANNELS),
      num_steps=num_steps,
      spacing='monai',
      guidance=guidance,
    )
    decode = our_decoder(modules, params)
    weights = jax.device_put(params['unet'])
    return lambda: generate.generate(
      sample, decode, weights, context, key, batch_size=batch
    )

  def peer_volumes(found, peer):
    from monai.inferers import LatentDiffusionInferer

    scheduler = networks.peer_scheduler()
    scheduler.set_timesteps(num_steps)
    inferer = LatentDiffusionInferer(scheduler, scale_factor=1.0)
    condition = networks.peer_context(context, peer)
    models = [found[name].eval() for name in ('autoencoder', 'unet')]
    cfg = None if guidance == 1 else guidance
    return lambda noise: peer.array(
      inferer.sample(noise, *models, conditioning=condition, verbose=False, cfg=cfg)
    )

  def peer(found, peer):
    volumes = peer_volumes(found, peer)
    shape = (batch, networks.LATENT_CHANNELS, *size)
    return lambda: volumes(peer.torch.randn(shape, device=peer.device))

  def outputs(modules, params, found, peer):
    keys = generate.request_keys(key, np.arange(batch))
    z_T = solvers.initial_noise(keys, (batch, *size, networks.LATENT_CHANNELS))
    theirs = peer_volumes(found, peer)(peer.tensor(z_T))
    return our_volumes(modules, params)(), theirs

  entries = {
    'unet': networks.unet(unet),
    'autoencoder': networks.autoencoder(autoencoder),
  }
  return common.Case(entries, our_volumes, peer, outputs)


def decoder(size, batch, config=networks.AUTOENCODER):
  z = networks.latents(size, batch)

  def ours(modules, params):
    decode = our_decoder(modules, params)
    return lambda: np.asarray(decode(z), np.float32)

  def peer(found, peer):
    net, inputs = found['autoencoder'].eval(), peer.tensor(z)
    return lambda: peer.array(peer.torch.no_grad()(net.decode)(inputs))

  def outputs(modules, params, found, peer_side):
    return ours(modules, params)(), peer(found, peer_side)()

  return common.Case({'autoencoder': networks.autoencoder(config)}, ours, peer, outputs)


def our_decoder(modules, params):
  """decode(z), compiled with the weights inside as `synthesis.system` does."""
  apply = functools.partial(
    modules['autoencoder'].apply,
    {'params': jax.device_put(params['autoencoder'])},
    method='decode',
  )
  return jax.jit(apply)


if __name__ == '__main__':
  common.main(__doc__, cases)
