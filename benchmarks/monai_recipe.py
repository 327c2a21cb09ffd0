"""MONAI's recipe of latent diffusion, trained for given seconds on our volumes.

The 3D tutorial (Project-MONAI/tutorials, generation/3d_ldm) with what short stacks
need: AutoencoderKL (L1 and KL), then DiffusionModelUNet (epsilon, scaled linear noise
of 1000 steps), Adam at constant rates, 50 steps of DDIM. Where it is changed:

- Attributes enter by cross-attention, one token of all of them in [0, 1]; -1 is an
  attribute that is not known, and a whole token of -1 one that is dropped (one example
  in ten), which is what MONAI's inferer takes for its guidance.
- The autoencoder has two levels, not three: the volumes have 8 slices, and MONAI halves
  every axis. Volumes are padded to multiples of 8 voxels.
- No adversarial and no perceptual loss: the first slows every step, the second needs
  weights from the net.
- The rates are arguments, since the tutorial's 1e-4 is meant for hours.

A module of `quality.py`; imports torch and MONAI (extra `interop`).
"""

import dataclasses
import itertools
import time

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import LatentDiffusionInferer
from monai.networks import nets
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

NOISE = {
  'num_train_timesteps': 1000,
  'schedule': 'scaled_linear_beta',
  'beta_start': 0.0015,
  'beta_end': 0.0195,
}
KL_WEIGHT, DROPPED, DROP_RATE, MULTIPLE = 1e-6, -1.0, 0.1, 8
# Steps after which the average of the parameters holds 100 steps.
AVERAGE = 0.99


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Widths and batches, by default those of the tutorial but for one level."""

  autoencoder: tuple = (32, 64)
  latent: int = 4
  denoiser: tuple = (32, 64, 64)
  attention: tuple = (False, True, True)
  groups: int = 16
  autoencoder_batch: int = 8
  denoiser_batch: int = 16
  ddim_steps: int = 50


TINY = Sizes((8, 8), 2, (8, 8, 8), groups=4, autoencoder_batch=2, denoiser_batch=2)


class Recipe:
  """The two networks and how they are trained and drawn from.

  Attributes:
    figures: examples, steps and seconds of both trainings, once they are done.
  """

  def __init__(self, sizes, num_attributes, seed):
    torch.manual_seed(seed)
    self.sizes, self.figures = sizes, {}
    self._rng, self._scale = np.random.default_rng(seed), 1.0
    self.autoencoder = nets.AutoencoderKL(
      spatial_dims=3,
      in_channels=1,
      out_channels=1,
      channels=sizes.autoencoder,
      latent_channels=sizes.latent,
      num_res_blocks=1,
      norm_num_groups=sizes.groups,
      attention_levels=(False,) * len(sizes.autoencoder),
      with_encoder_nonlocal_attn=False,
      with_decoder_nonlocal_attn=False,
    )
    self.denoiser = nets.DiffusionModelUNet(
      spatial_dims=3,
      in_channels=sizes.latent,
      out_channels=sizes.latent,
      num_res_blocks=1,
      channels=sizes.denoiser,
      attention_levels=sizes.attention,
      num_head_channels=tuple(
        width if attends else 0
        for width, attends in zip(sizes.denoiser, sizes.attention, strict=True)
      ),
      norm_num_groups=sizes.groups,
      with_conditioning=True,
      cross_attention_dim=num_attributes,
    )

  def fit(self, volumes, contexts, seconds, rates, average=False):
    """Trains both networks, each for its own seconds.

    Args:
      volumes: (n,d,h,w,1) in [0, 1].
      contexts: (n,k), of `context`.
      seconds, rates: of the autoencoder and of the denoiser.
      average: whether samples come from an average of the denoiser's parameters.
    """
    x = _padded(volumes)
    self._fit_autoencoder(x, seconds[0], rates[0])
    began = time.perf_counter()
    mean, std = self._encoded(x)
    self._scale = 1 / float((mean + std * torch.randn(std.shape)).std())
    left = seconds[1] - (time.perf_counter() - began)
    self._fit_denoiser(mean, std, torch.from_numpy(contexts), left, rates[1], average)

  def reconstruct(self, volumes):
    """(n,d,h,w,1) encoded and decoded."""
    with torch.no_grad():
      parts = [
        self.autoencoder.decode(self.autoencoder.encode(x)[0])
        for x in _padded(volumes).split(self.sizes.denoiser_batch)
      ]
    return _cropped(torch.cat(parts), volumes.shape)

  def sample(self, contexts, shape, guidance, seed):
    """Volumes (n,d,h,w,1) of contexts (n,k) by DDIM; shape is (d,h,w)."""
    scheduler = DDIMScheduler(clip_sample=False, **NOISE)
    scheduler.set_timesteps(self.sizes.ddim_steps)
    inferer = LatentDiffusionInferer(scheduler, scale_factor=self._scale)
    torch.manual_seed(seed)
    halves = 2 ** (len(self.sizes.autoencoder) - 1)
    latent = [-(-n // MULTIPLE) * MULTIPLE // halves for n in shape]
    volumes = []
    for tokens in torch.from_numpy(contexts)[:, None].split(24):
      noise = torch.randn(len(tokens), self.sizes.latent, *latent)
      with torch.no_grad():
        volumes.append(
          inferer.sample(
            noise,
            self.autoencoder,
            self.denoiser,
            conditioning=tokens,
            verbose=False,
            cfg=None if guidance == 1 else guidance,
          )
        )
    return _cropped(torch.cat(volumes), (len(contexts), *shape, 1))

  def _fit_autoencoder(self, x, seconds, rate):
    network, batch = self.autoencoder.train(), self.sizes.autoencoder_batch
    optimizer = torch.optim.Adam(network.parameters(), rate)

    def step(chosen):
      optimizer.zero_grad(set_to_none=True)
      x_hat, mean, std = network(x[chosen])
      variance = std**2
      kl = 0.5 * (mean**2 + variance - torch.log(variance) - 1).flatten(1).sum(1)
      (F.l1_loss(x_hat, x[chosen]) + KL_WEIGHT * kl.mean()).backward()
      optimizer.step()

    self.figures['autoencoder'] = self._timed(step, len(x), batch, seconds)
    network.eval()

  def _encoded(self, x):
    with torch.no_grad():
      parts = [self.autoencoder.encode(part) for part in x.split(16)]
    return [torch.cat(side) for side in zip(*parts, strict=True)]

  def _fit_denoiser(self, mean, std, contexts, seconds, rate, average):
    network, batch = self.denoiser.train(), self.sizes.denoiser_batch
    optimizer = torch.optim.Adam(network.parameters(), rate)
    scheduler = DDPMScheduler(**NOISE)
    parameters = list(network.parameters())
    averages = [value.detach().clone() for value in parameters]
    steps = itertools.count(1)

    def step(chosen):
      optimizer.zero_grad(set_to_none=True)
      z = (mean[chosen] + std[chosen] * torch.randn(std[chosen].shape)) * self._scale
      noise, t = torch.randn(z.shape), torch.randint(0, 1000, (len(z),))
      dropped = torch.rand(len(z), 1, 1) < DROP_RATE
      context = torch.where(dropped, DROPPED, contexts[chosen][:, None])
      output = network(scheduler.add_noise(z, noise, t), timesteps=t, context=context)
      F.mse_loss(output, noise).backward()
      optimizer.step()
      number = next(steps)
      if average:
        decay = min(AVERAGE, number / (9 + number))
        torch._foreach_lerp_(averages, [v.detach() for v in parameters], 1 - decay)

    self.figures['denoiser'] = self._timed(step, len(mean), batch, seconds)
    if average:
      with torch.no_grad():
        for value, mean_value in zip(parameters, averages, strict=True):
          value.copy_(mean_value)
    network.eval()

  def _timed(self, step, num, batch, seconds):
    """Takes steps of random examples, each once an epoch, until the time is over."""
    batch, taken = min(batch, num), 0
    began = time.perf_counter()
    while not taken or time.perf_counter() - began < seconds:
      order = torch.from_numpy(self._rng.permutation(num))
      for chosen in order[: num // batch * batch].split(batch):
        step(chosen)
        taken += 1
        if time.perf_counter() - began >= seconds:
          break
    spent = time.perf_counter() - began
    return {
      'steps': taken,
      'examples': taken * batch,
      'seconds': round(spent, 2),
      'examples_per_second': round(taken * batch / spent, 2),
    }


def context(vectors, schema):
  """Encoded attributes (n,k), NaN where unknown -> tokens (n,k) in [0, 1], or -1."""
  continuous = np.array([attribute.kind == 'continuous' for attribute in schema])
  scaled = np.where(continuous, (vectors + 1) / 2, vectors)
  return np.nan_to_num(scaled, nan=DROPPED).astype(np.float32)


def _padded(volumes):
  """(n,d,h,w,1) -> (n,1,d,h,w), zeros after the last voxel of each axis."""
  x = torch.from_numpy(np.ascontiguousarray(volumes[..., 0]))[:, None]
  pads = [(0, -n % MULTIPLE) for n in volumes.shape[1:4]]
  return F.pad(x, [end for pad in reversed(pads) for end in pad])


def _cropped(x, shape):
  """(n,1,d,h,w) -> (n,d,h,w,1) of `shape`, in [0, 1]."""
  d, h, w = shape[1:4]
  return x[:, 0, :d, :h, :w].clamp(0, 1).numpy()[..., None].astype(np.float32)
