"""Does the input keep a training step of 5 ms fed? Batches per second from the store.

    python benchmarks/input.py [--step_ms=5] [--batch_size=8] [--steps=400]

A store of phantom stacks is prepared; then training is played: at every step a batch of
volumes (stage autoencoder) or of latents (stage diffusion) is asked for, and the step
itself waits as a host waits for its accelerator. `in_turn` makes each batch before its
step, `ahead` as the stages do, in a thread (`data.prefetch`). Fed is the share of the
time in which the accelerator works; 1 is perfect.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time

import numpy as np

from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.prefetch import Prefetcher
from ldm_jax.data.preprocessing.augment import augment
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import latents, store

SHAPE, LATENT = (14, 96, 96), (14, 24, 24, 4)
WARM_UP = 5


def sources(folder, num, batch_size):
  """{name: step -> batch}, as the stages make them."""
  spacing = (10.0, 2.0, 2.0)
  cohort = cardiac.cohort('bench', num, shape=SHAPE, spacing_mm=spacing)
  store.prepare(folder, cohort, Spec(SHAPE))
  split = store.open_split(folder, 'bench')
  rng = np.random.default_rng(0)
  latents.write(folder, split, 'bench', rng.random((len(split), *LATENT), np.float32))
  z = np.asarray(latents.read(folder, split, 'bench'))

  def chosen(step):
    return epoch_batch(len(split), batch_size, 0, step, True)

  def moved(step):
    options = {'shift': (0, 4, 4), 'rotation_deg': (10, 0, 0), 'gamma': 0.2}
    generator = np.random.default_rng(step)
    return augment(split.volumes(chosen(step)), generator, **options)

  return {
    'latents': lambda step: z[chosen(step)],
    'volumes': lambda step: split.volumes(chosen(step)),
    'augmented_volumes': moved,
  }


def play(batch, steps, step_seconds):
  """(batches per second, share of the time spent in the step)."""
  for step in range(steps + WARM_UP):
    if step == WARM_UP:
      began, worked = time.perf_counter(), 0.0
    batch(step)
    started = time.perf_counter()
    time.sleep(step_seconds)
    if step >= WARM_UP:
      worked += time.perf_counter() - started
  seconds = time.perf_counter() - began
  return round(steps / seconds, 1), round(worked / seconds, 4)


def measure(make, steps, step_seconds):
  """What one source reaches alone, in turn with the step, and ahead of it."""
  alone = play(make, steps, 0.0)[0]
  in_turn = play(make, steps, step_seconds)
  with Prefetcher(make, steps + WARM_UP) as batch:
    ahead = play(batch, steps, step_seconds)
  return {
    'alone_batches_per_second': alone,
    'in_turn_batches_per_second': in_turn[0],
    'in_turn_fed': in_turn[1],
    'ahead_batches_per_second': ahead[0],
    'ahead_fed': ahead[1],
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--step_ms', type=float, default=5.0)
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--steps', type=int, default=400)
  parser.add_argument('--quick', action='store_true', help='few steps: does it run?')
  options = parser.parse_args()
  steps, num = (5, 2) if options.quick else (options.steps, 16)
  with tempfile.TemporaryDirectory() as folder:
    found = {
      name: measure(make, max(steps // 10, 5) if 'aug' in name else steps, seconds)
      for seconds in [options.step_ms / 1000]
      for name, make in sources(folder, num, options.batch_size).items()
    }
  answer = {
    'benchmark': 'input',
    'fed': min(found[name]['ahead_fed'] for name in ('latents', 'volumes')),
    'cases': found,
    'step_ms': options.step_ms,
    'batch_size': options.batch_size,
    'volume': list(SHAPE),
    'latent': list(LATENT),
    'command': ' '.join(['python', *sys.argv]),
    'hardware': platform.processor() or platform.machine(),
    'cores': os.cpu_count(),
  }
  print(json.dumps(answer))


if __name__ == '__main__':
  main()
