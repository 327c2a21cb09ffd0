"""Private steps of MONAI's UNet in torch: vmap by hand, and Opacus where installed."""

import model_step
import networks

LEARNING_RATE, CLIP_NORM, SIGMA = 1e-4, 1.0, 1.0


def peers(size, batch, peer, quick=False):
  """{name: step()} of torch: plain, vmap by hand, Opacus's modes where installed."""
  config = networks.TINY_UNET if quick else networks.UNET
  case = model_step.denoiser(size, batch, config)
  found = {'peer_plain': peer.step(case, peer.networks(case))}
  found['vmap'] = vmap_by_hand(case, size, batch, peer)
  try:
    import opacus  # noqa: F401
  except ImportError:
    return found
  for mode in ('functorch', 'hooks'):
    found[f'opacus_{mode}'] = by_opacus(case, size, batch, peer, mode)
  return found


def data(size, batch, peer):
  """() -> (noisy latents, noise, t, context), drawn anew."""
  torch, scheduler = peer.torch, networks.peer_scheduler()
  z = peer.tensor(networks.latents(size, batch))
  context = networks.peer_context(networks.contexts(batch), peer)

  def draw():
    noise = torch.randn_like(z)
    t = torch.randint(0, 1000, (batch,), device=peer.device)
    return scheduler.add_noise(z, noise, t), noise, t, context

  return draw


def vmap_by_hand(case, size, batch, peer):
  torch, net = peer.torch, peer.networks(case)['unet'].train()
  draw = data(size, batch, peer)
  optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE)

  def loss(params, z_t, noise, t, context):
    inputs = (z_t[None], t[None], context[None])
    output = torch.func.functional_call(net, params, inputs)
    return torch.nn.functional.mse_loss(output, noise[None])

  gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0, 0, 0))

  def step():
    params = {name: value.detach() for name, value in net.named_parameters()}
    each = gradients(params, *draw())
    norm = sum(g.flatten(1).pow(2).sum(1) for g in each.values()).sqrt()
    scale = (CLIP_NORM / (norm + 1e-6)).clamp(max=1)
    for name, value in net.named_parameters():
      total = torch.einsum('n,n...->...', scale, each[name])
      noise = SIGMA * CLIP_NORM * torch.randn_like(value)
      value.grad = (total + noise) / batch
    optimizer.step()

  return step


def by_opacus(case, size, batch, peer, mode):
  from opacus import PrivacyEngine
  from torch.utils.data import DataLoader, TensorDataset

  torch, net = peer.torch, peer.networks(case)['unet'].train()
  draw = data(size, batch, peer)
  loader = DataLoader(TensorDataset(torch.zeros(10 * batch, 1)), batch_size=batch)
  net, optimizer, _ = PrivacyEngine().make_private(
    module=net,
    optimizer=torch.optim.AdamW(net.parameters(), LEARNING_RATE),
    data_loader=loader,
    noise_multiplier=SIGMA,
    max_grad_norm=CLIP_NORM,
    grad_sample_mode=mode,
  )[:3]

  def step():
    optimizer.zero_grad(set_to_none=True)
    z_t, noise, t, context = draw()
    output = net(z_t, timesteps=t, context=context)
    torch.nn.functional.mse_loss(output, noise).backward()
    optimizer.step()

  return step
