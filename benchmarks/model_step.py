"""One training step of the denoiser and of the autoencoder, ours beside MONAI's.

    python benchmarks/model_step.py [--device=cuda] [--cases=NAME,...] [--repeats=11]

Ours is the step that the stages `diffusion` and `autoencoder` take (clipped gradient,
Adam, average of the parameters), MONAI's is that of its tutorials (Adam alone).
"""

import functools

import common
import jax
import jax.numpy as jnp
import networks
import numpy as np

from ldm_jax.config.defaults import defaults
from ldm_jax.training import autoencoder_loss, denoising_loss, optimizers, state
from ldm_jax.training import mesh as meshes
from ldm_jax.training.packing import Packing
from ldm_jax.training.plain_step import plain_step

LEARNING_RATE, KL_WEIGHT = 1e-4, 1e-6


def cases(quick=False):
  """{name: Case}: latents of two sizes by two batches, and the autoencoder."""
  if quick:
    return {
      'denoiser_tiny': denoiser((8, 8, 4), 2, networks.TINY_UNET),
      'autoencoder_tiny': autoencoder((8, 8, 8), 1, networks.TINY_AUTOENCODER),
    }
  found = {
    f'denoiser_16x16x{depth}_batch_{batch}': denoiser((16, 16, depth), batch)
    for depth in (8, 16)
    for batch in (8, 16)
  }
  return {**found, 'autoencoder_64x64x32_batch_2': autoencoder((64, 64, 32), 2)}


def denoiser(size, batch, config=networks.UNET):
  z, context = networks.latents(size, batch), networks.contexts(batch)
  examples = {'z': z, 'attributes': context}

  def ours(modules, params):
    losses = denoising_loss.denoising_losses(
      networks.Conditioned(modules['unet']), networks.schedule(), 'epsilon', 0.0
    )
    return packed_training(
      denoising_loss.example_losses(losses),
      lambda packing: optimizers.public('adam', packing, LEARNING_RATE, 1000),
      params['unet'],
      examples,
    )

  def peer(found, peer):
    torch, net = peer.torch, found['unet'].train()
    scheduler = networks.peer_scheduler()
    inputs, condition = peer.tensor(z), networks.peer_context(context, peer)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE)

    def step():
      optimizer.zero_grad(set_to_none=True)
      noise = torch.randn_like(inputs)
      t = torch.randint(0, 1000, (batch,), device=peer.device)
      output = net(scheduler.add_noise(inputs, noise, t), t, condition)
      torch.nn.functional.mse_loss(output.float(), noise).backward()
      optimizer.step()

    return step

  return common.Case(
    {'unet': networks.unet(config)},
    ours,
    peer,
    functools.partial(networks.unet_outputs, z, context),
  )


def autoencoder(size, batch, config=networks.AUTOENCODER):
  x = np.random.default_rng(0).random((batch, *size, 1), np.float32)

  def ours(modules, params):
    section = defaults().autoencoder
    section.update(l1_weight=1.0, mse_weight=0.0, kl_weight=KL_WEIGHT)
    section.learning_rate = LEARNING_RATE
    losses = autoencoder_loss.example_losses(modules['autoencoder'], section)
    return packed_training(
      losses,
      lambda packing: autoencoder_loss.optimizer(section, packing),
      params['autoencoder'],
      {'x': x},
    )

  def peer(found, peer):
    torch, net = peer.torch, found['autoencoder'].train()
    inputs = peer.tensor(x)
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)

    def step():
      optimizer.zero_grad(set_to_none=True)
      x_hat, mean, std = net(inputs)
      mean, std = mean.float(), std.float()
      kl = 0.5 * (mean**2 + std**2 - 1) - torch.log(std)
      loss = torch.nn.functional.l1_loss(x_hat.float(), inputs)
      (loss + KL_WEIGHT * kl.mean()).backward()
      optimizer.step()

    return step

  return common.Case(
    {'autoencoder': networks.autoencoder(config)},
    ours,
    peer,
    functools.partial(networks.autoencoder_outputs, x),
  )


def packed_training(losses, optimizer_of, params, batch):
  """`training` as the public stages do it; optimizer_of: (Packing) -> optimiser."""
  flat = state.flatten(params)
  packing = Packing(flat)
  optimizer = optimizer_of(packing)
  return training(packing.losses(losses), optimizer, packing.pack(flat), batch)


def training(losses, optimizer, params, batch, frozen=None):
  """step() of `training.plain_step.plain_step`, which moves its own copy of params.

  params may be nested or flat; frozen is a flat dict of those that do not move.
  """
  mesh = meshes.make_mesh(devices=jax.devices()[:1])
  take = plain_step(losses, optimizer, mesh, ema_decay=0.999)
  current = begun(params, optimizer, mesh)
  batch, key = meshes.put_examples(mesh, batch), jax.random.key(0)

  def step():
    nonlocal current
    current, metrics = take(current, frozen or {}, batch, key)
    jax.block_until_ready((current, metrics))

  return step


def begun(params, optimizer, mesh):
  """State at step 0 over a copy of params."""
  trained = jax.tree.map(jnp.array, state.flatten(params))
  return meshes.put_state(mesh, state.create(trained, optimizer))


if __name__ == '__main__':
  common.main(__doc__, cases)
