"""How far a private drift lies from the one found without noise, over 20 noises.

    python benchmarks/private_drift.py [--patients=100] [--seeds=20] [--epsilons=0.25,1]
    python benchmarks/private_drift.py --config=FILE[:ARGS] --workdir=W

Without a work folder the patients are synthetic: latents whose means differ between
patients (deviation 0.25) and lie 0.5 from the public ones in every channel, and the
exact denoiser of the public latents as the network, so that nothing is trained and the
answer does not depend on luck. With one (stages up to `encode` and `diffusion` done) it
asks that network about its private cohort, WITHOUT privacy: the figures are internal.
One line of JSON: for each search the drift without noise and, for each epsilon of the
release, mean and 95th percentile of |private - not private| in units of delta, the
share of seeds with the very same answer, and what clipping alone moves.
"""

import argparse
import json

import jax
import numpy as np

from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.diffusion import process, shift
from ldm_jax.pipeline import drift_search, private_releases
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import accounting, releases, secret_key
from ldm_jax.synthesis.drift_probe import Probe
from ldm_jax.training import networks
from ldm_jax.workfolder import WorkFolder

SHAPE = (4, 8, 8, 4)  # of a synthetic latent
APART, BETWEEN = 0.5, 0.25  # private mean of every channel, deviation of patients
DELTA = 1e-5


class Exact:
  """The best denoiser of latents = a mean per patient and channel + N(0, 1) a cell."""

  def __init__(self, schedule):
    self.schedule = schedule

  def apply(self, params, z_t, t, conditions, drop):
    del params, conditions, drop
    signal, noise = process.signal_and_noise(self.schedule.at(t), z_t)
    mean = z_t.mean(tuple(range(1, z_t.ndim - 1)), keepdims=True)
    cells = np.prod(SHAPE[:-1])
    within = noise / (signal**2 + noise**2)
    along = noise / (signal**2 * (1 + cells * BETWEEN**2) + noise**2)
    return within * (z_t - mean) + along * mean


def synthetic(num_patients):
  """(network to ask, public patients, private patients), each (examples, names)."""
  config = defaults()
  config.diffusion.prediction = 'epsilon'
  module = Exact(networks.schedule(config))
  draws = np.random.default_rng(0)

  def cohort(apart):
    means = BETWEEN * draws.standard_normal((num_patients, 1, *(1,) * 3, SHAPE[-1]))
    z = apart + means + draws.standard_normal((num_patients, 1, *SHAPE))
    examples = {
      'z': z.astype(np.float32),
      'attributes': np.zeros((num_patients, 1, 1), np.float32),
      'present': np.ones((num_patients, 1), bool),
    }
    return examples, [f'{apart}-{number}' for number in range(num_patients)]

  return Probe(config, module, {}, jax.random.key(0)), cohort(0.0), cohort(APART)


def of_work_folder(config, work):
  """As `synthetic`, of a run."""
  run = Run(config, work)
  public, target = (
    drift_search.cohort(run, run.splits[name]) for name in ('public', 'private')
  )
  return drift_search.network(run), public[2:], target[2:]


def measure(asked, public, target, search, epsilons, seeds):
  """The figures of one search."""
  config = asked.config
  config.adapt.drift.search = search
  clip, count = private_releases.CLIP_NORMS[search], len(target[1])
  scale = releases.public_scale(drift_search.vectors(asked, *public))
  parts = drift_search.vectors(asked, *target)
  finish = finisher(asked, search, public, target)
  plain = finish(parts.mean(0))
  clipped = finish(scale * releases.clip_rows(parts / scale, clip).mean(0))
  found = {
    'not_private': np.round(plain, 4).tolist(),
    'moved_by_clipping': float(np.abs(clipped - plain).max()),
    'patients_clipped': float((np.linalg.norm(parts, axis=1) > clip * scale).mean()),
  }
  for epsilon in epsilons:
    sigma = accounting.calibrate(epsilon, DELTA, 1.0, 1)
    errors = []
    for seed in range(seeds):
      key = secret_key.new_noise_key(seed)
      mean, _ = releases.private_parts(parts, scale, clip, sigma, count, key, search)
      errors.append(np.abs(finish(mean) - plain).max())
    found[f'epsilon_{epsilon:g}'] = {
      'mean_error': float(np.mean(errors)),
      'p95_error': float(np.quantile(errors, 0.95)),
      'same': float(np.mean(np.isclose(errors, 0))),
    }
  return found


def finisher(asked, search, public, target):
  """mean vector -> drift (c,) or (1,): what follows from the release."""
  section = asked.config.adapt.drift
  if search == 'private_loss':
    return lambda mean: np.atleast_1d(releases.least_drift(mean, list(section.grid)))
  examples = public[0]
  conditions = examples['attributes'].reshape(-1, examples['attributes'].shape[-1])
  shape = target[0]['z'].shape[2:]
  model_mean, gain = asked.movement(shape, conditions)
  largest = max(map(abs, section.grid))
  return lambda mean: shift.closed_form(mean, model_mean, gain, largest)


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--patients', type=int, default=100)
  parser.add_argument('--seeds', type=int, default=20)
  parser.add_argument('--epsilons', default='0.25,0.5,1')
  parser.add_argument('--config', default='')
  parser.add_argument('--workdir', default='')
  flags = parser.parse_args(argv)
  if flags.config:
    config = parsing.load(flags.config)
    asked, public, target = of_work_folder(config, WorkFolder(flags.workdir))
  else:
    asked, public, target = synthetic(flags.patients)
  epsilons = [float(word) for word in flags.epsilons.split(',')]
  found = {
    search: measure(asked, public, target, search, epsilons, flags.seeds)
    for search in ('private_mean', 'private_loss')
  }
  about = {'patients': len(target[1]), 'seeds': flags.seeds, 'delta': DELTA}
  print(json.dumps({**about, 'internal': bool(flags.config), **found}))


if __name__ == '__main__':
  main()
