"""A private step beside the non-private one, and beside torch's ways to make one.

    python benchmarks/dp_step.py [--cases=NAME,...] [--repeats=5] [--device=cuda]
    python benchmarks/dp_step.py --chunk=16 --only=time   # neither peers nor memory

Ours is the step of the stage `adapt` (`private_step.private_step`), clipping per
patient, noise on every parameter, Adam and the parameter average; the non-private one
is the same network's step on the same batch. The peers train MONAI's UNet of the same
architecture: per-example gradients by `torch.func.vmap` written by hand, and Opacus
with functorch and with hooks (`pip install --no-deps opacus`; left out if it lacks).
One line of JSON: three ratios, each the worst over the cases, and the cases.
"""

import argparse
import json
import statistics
import subprocess
import sys

import common
import dp_peers
import jax
import jax.numpy as jnp
import memory
import model_step
import networks
import numpy as np
import optax
from dp_peers import CLIP_NORM, LEARNING_RATE, SIGMA

from ldm_jax.config.defaults import defaults
from ldm_jax.privacy import mechanisms, secret_key
from ldm_jax.training import denoising_loss, methods, state
from ldm_jax.training import mesh as meshes
from ldm_jax.training import private_step as private_steps

CHUNK = 16  # patients a compiled call: what bounds the memory of a larger batch
DRAWS = 8
SIDES = ('plain', 'private')


def cases(quick):
  """{name: (size, batch, kind)}; kind 'full', 'lora' or 'draws'."""
  if quick:
    return {'tiny': ((8, 8, 4), 2, 'full')}
  found = {
    f'16x16x{depth}_batch_{batch}': ((16, 16, depth), batch, 'full')
    for depth in (8, 16)
    for batch in (8, 16, 64)
  }
  found['16x16x8_batch_8_lora'] = ((16, 16, 8), 8, 'lora')
  found['16x16x8_batch_2_8_draws'] = ((16, 16, 8), 2, 'draws')
  return found


def ours(size, batch, kind, quick=False, chunk=CHUNK):
  """{'plain': step(), 'private': step()}, each built when it is first called.

  Of `draws`, the plain side is the private step of a batch 8 times larger.
  """
  config = networks.TINY_UNET if quick else networks.UNET
  case = model_step.denoiser(size, batch, config)
  params = state.flatten(case.any_params()['unet'])
  module = networks.Conditioned(case.networks['unet'][0].module)
  losses = denoising_loss.denoising_losses(module, networks.schedule(), 'epsilon', 0.0)
  frozen = {}
  if kind == 'lora':
    section = defaults().adapt
    section.method = 'lora'
    new = methods.added(section, params, jax.random.key(0))
    params, frozen = methods.partition('lora', {**params, **new})

  def private(batch=batch, draws=DRAWS if kind == 'draws' else 1):
    return private_step(losses, params, frozen, size, batch, draws, chunk)

  def plain():
    if kind == 'draws':
      return private(DRAWS * batch, 1)
    return plain_step(losses, params, frozen, size, batch)

  return {'plain': plain, 'private': private}


def plain_step(losses, params, frozen, size, batch):
  examples = {
    'z': networks.latents(size, batch),
    'attributes': networks.contexts(batch),
  }
  optimizer = state.clipped_adam(state.learning_rates(LEARNING_RATE, 1000))
  losses = denoising_loss.example_losses(losses)
  return model_step.training(losses, optimizer, params, examples, frozen)


def private_step(losses, params, frozen, size, batch, draws, chunk):
  optimizer = optax.adam(LEARNING_RATE)
  mesh = meshes.make_mesh(devices=jax.devices()[:1])
  scheme = mechanisms.Poisson(
    num_patients=10 * batch,
    batch_size=batch,
    steps=1000,
    clip_norm=CLIP_NORM,
    noise_multiplier=SIGMA,
  )
  take = private_steps.private_step(
    denoising_loss.patient_loss(losses, draws),
    optimizer,
    mesh,
    0.999,
    scheme,
    microbatch=0,
  )
  current, chunk = model_step.begun(params, optimizer, mesh), min(chunk, batch)
  z, attributes = networks.latents(size, batch), networks.contexts(batch)

  def chunks():
    for start in range(0, batch, chunk):
      rows = slice(start, start + chunk)
      examples = {
        'z': z[rows, None],
        'attributes': attributes[rows, None],
        'present': np.ones((chunk, 1), bool),
      }
      patients = np.arange(start, start + chunk, dtype=np.int32)
      yield meshes.put_examples(mesh, (examples, np.ones(chunk, bool), patients))

  key, secret = jax.random.key(0), secret_key.new_noise_key(0)

  def step():
    nonlocal current
    current = take(current, frozen, chunks(), key, secret)
    jax.block_until_ready(current)

  return step


def measure(name, case, options, peer):
  """Medians of alternating runs, ratios, and peaks of memory."""
  size, batch, kind = case
  steps = {
    side: make() for side, make in ours(*case, options.quick, options.chunk).items()
  }
  if kind == 'full' and not options.only:
    steps |= dp_peers.peers(size, batch, peer, options.quick)
  found = common.interleaved(list(steps.values()), options.repeats)
  seconds = {
    side: statistics.median(runs) for side, runs in zip(steps, found, strict=True)
  }
  figures = {f'{side}_seconds': round(value, 5) for side, value in seconds.items()}
  ratio = seconds['private'] / seconds['plain']
  figures['private_over_nonprivate' if kind != 'draws' else 'over_larger_batch'] = (
    round(ratio, 3)
  )
  rivals = {k: v for k, v in seconds.items() if k == 'vmap' or k.startswith('opacus')}
  if rivals:
    best = min(rivals, key=rivals.get)
    figures['best_peer'] = best
    figures['speed_ratio_to_best_peer'] = round(rivals[best] / seconds['private'], 3)
    modes = [v for k, v in rivals.items() if k.startswith('opacus')]
    if modes:
      figures['speed_ratio_to_opacus'] = round(min(modes) / seconds['private'], 3)
  for side in () if options.only == 'time' else SIDES:
    command = [sys.executable, sys.argv[0], f'--cases={name}', f'--memory={side}']
    command += [f'--device={options.device}', *['--quick'] * options.quick]
    command += [f'--chunk={options.chunk}']
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures[f'{side}_mib'] = round(json.loads(answer.stdout)['running_peak_mib'], 1)
  if options.only != 'time':
    ratio = figures['private_mib'] / figures['plain_mib']
    figures['peak_memory_ratio'] = round(ratio, 3)
  return figures


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--cases', default='', help='names, comma-separated; all if none')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--quick', action='store_true', help='tiny shapes: does it run?')
  parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
  parser.add_argument('--memory', choices=SIDES, help='print the peak of one side only')
  parser.add_argument('--chunk', type=int, default=CHUNK, help='patients a call')
  parser.add_argument(
    '--only', choices=('ours', 'time'), help='no peers; neither peers nor memory'
  )
  options = parser.parse_args()
  jax.config.update('jax_platforms', options.device)
  known = cases(options.quick)
  names = options.cases.split(',') if options.cases else list(known)
  unknown = sorted(set(names) - set(known))
  if unknown:
    parser.error(f'unknown cases {unknown}; choose from {", ".join(known)}')
  if options.memory:
    jax.block_until_ready(jnp.zeros(1))
    base = memory.resident()
    step = ours(*known[names[0]], options.quick, options.chunk)[options.memory]()
    step()
    print(json.dumps(memory.peak_of(step, base)))
    return
  peer, found = common.Peer(options.device), {}
  for name in names:
    found[name] = measure(name, known[name], options, peer)
    print(name, json.dumps(found[name]), file=sys.stderr, flush=True)

  def worst(key, choose):
    values = [case[key] for case in found.values() if key in case]
    return choose(values) if values else None

  print(
    json.dumps(
      {
        'benchmark': 'dp_step',
        'private_over_nonprivate': worst('private_over_nonprivate', max),
        'speed_ratio_to_best_peer': worst('speed_ratio_to_best_peer', min),
        'peak_memory_ratio': worst('peak_memory_ratio', max),
        'cases': found,
        **common.circumstances(options.repeats, options.device, peer),
      }
    )
  )


if __name__ == '__main__':
  main()
