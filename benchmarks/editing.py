"""What drift costs in sampling, and cross-attention guidance beside plain sampling.

    python benchmarks/editing.py [--device=cuda] [--repeats=11] [--steps=50] [--quick]

One line of JSON: ratios of medians of runs in turns, all of 50 deterministic steps with
one network. Guidance is the sampling of the editor `pix2pix_zero`, whose source is
inverted before; the whole edit, with inversion, is timed beside it.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import sys

import common
import jax
import networks
import numpy as np

from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.synthesis import generate
from ldm_jax.synthesis.editors import pix2pix_zero, registry
from ldm_jax.synthesis.editors.setting import Setting

DRIFT, NUM_ATTRIBUTES = 0.1, 3
# As the peers' UNet in `networks`, over the tokens of three attributes.
UNET = {
  'channels': (32, 64, 128),
  'attention_levels': (False, False, True),
  'num_head_channels': 32,
  'norm_groups': 32,
}
TINY_UNET = {'channels': (8, 16), 'num_head_channels': 8, 'norm_groups': 4}


def sides(size, batch, num_steps, unet):
  """{name: step()}, each ends when its latents are computed."""
  channels = networks.LATENT_CHANNELS
  module = ConditionalDenoiser(
    (0,) * NUM_ATTRIBUTES, channels, channels, unet_kwargs=unet
  )
  rng = np.random.default_rng(0)
  z = networks.latents(size, batch)
  own, new = rng.uniform(-1, 1, (2, batch, NUM_ATTRIBUTES)).astype(np.float32)
  t, drop = np.zeros(batch, np.int32), np.zeros(batch, bool)
  shapes = jax.eval_shape(module.init, jax.random.key(0), z, t, own, drop)['params']
  # Parameters that start at zero would make maps without a gradient.
  params = jax.tree.map(
    lambda leaf: jax.device_put(rng.normal(0, 0.02, leaf.shape).astype(np.float32)),
    shapes,
  )

  def apply(params, *inputs, mutable=False):
    return module.apply({'params': params}, *inputs, mutable=mutable)

  schedule = networks.schedule()
  keys = generate.request_keys(jax.random.key(0), np.arange(batch))
  found = {}
  for name, drift in (('plain', None), ('drifted', DRIFT)):
    run = generate.make_sampler(
      apply, schedule, z.shape[1:], num_steps=num_steps, drift=drift
    )
    found[name] = functools.partial(run, params, new, keys)
  setting = Setting(apply, schedule, num_steps)
  rates = 0.005, 0.001
  record = jax.jit(lambda params: pix2pix_zero.recorded(setting, params, z, own, rates))
  source = jax.block_until_ready(record(params))
  guide = jax.jit(
    lambda params, source: pix2pix_zero.guided(setting, params, source, own, new)
  )
  found['guided'] = functools.partial(guide, params, source)
  edit = registry.make('pix2pix_zero', setting)
  found['whole_edit'] = functools.partial(edit, params, z, own, new)
  return {
    name: lambda step=step: jax.block_until_ready(step())
    for name, step in found.items()
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--repeats', type=int, default=11, help='timed runs of each side')
  parser.add_argument('--steps', type=int, default=50)
  parser.add_argument('--quick', action='store_true', help='tiny shapes: does it run?')
  parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
  options = parser.parse_args()
  jax.config.update('jax_platforms', options.device)
  size, batch, unet = ((16, 16, 8), 2, UNET)
  if options.quick:
    size, batch, unet, options.steps = (4, 4, 2), 1, TINY_UNET, 2
  steps = sides(size, batch, options.steps, unet)
  seconds = {
    name: statistics.median(times)
    for name, times in zip(
      steps, common.interleaved(list(steps.values()), options.repeats), strict=True
    )
  }
  print(
    json.dumps(
      {
        'benchmark': 'editing',
        'drifted_over_plain': round(seconds['drifted'] / seconds['plain'], 3),
        'guided_over_plain': round(seconds['guided'] / seconds['plain'], 3),
        'seconds': {name: round(value, 5) for name, value in seconds.items()},
        'latent': [batch, *size, networks.LATENT_CHANNELS],
        'steps': options.steps,
        'repeats': options.repeats,
        'command': ' '.join(['python', *sys.argv]),
        'hardware': platform.processor() or platform.machine(),
        'cores': os.cpu_count(),
        'load': [round(value, 1) for value in os.getloadavg()],
        'jax': jax.__version__,
      }
    )
  )


if __name__ == '__main__':
  main()
