"""Laws of the private step that hold whatever jax is set to: one patient, one norm.

Settings of jax choose the generator of random numbers, and how keys are split. A draw
of one patient that depended on the others would move the sum by more than clip_norm.
"""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.diffusion import schedules
from ldm_jax.diffusion.drift import Drift
from ldm_jax.privacy import mechanisms, secret_key
from ldm_jax.training import (
  denoising_loss,
  pair_examples,
  patients,
  prior_preservation,
  private_step,
  state,
)
from ldm_jax.training.mesh import make_mesh, put_examples, put_state

SETTINGS = {
  'default': contextlib.nullcontext,
  'rbg': lambda: jax.default_prng_impl('rbg'),
  'unsafe_rbg': lambda: jax.default_prng_impl('unsafe_rbg'),
  'not partitionable': lambda: jax.threefry_partitionable(False),
}
each_setting = pytest.mark.parametrize('setting', SETTINGS)
# Every draw that a patient's loss may make: some of the volumes, times, noise, a random
# drift, dropped conditions, hidden texts, samples of the class.
VOLUMES = (2, 1, 3, 7)  # of each patient
LATENT, NUM_CONDITIONS = (4, 4, 4, 2), 3
NAMES = [f'patient-{number}' for number in range(len(VOLUMES))]
CLIP_NORM, EXPECTED, CHUNK = 0.05, 4.0, 8
RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(sum(VOLUMES), *LATENT)).astype(np.float32)
CONDITIONS = RNG.normal(size=(sum(VOLUMES), NUM_CONDITIONS)).astype(np.float32)


class Network:
  """A weight for each entry of the latent, so that other noise turns the gradient."""

  def apply(self, variables, z_t, t, conditions, drop, untold=None):
    p = variables['params']['unet']
    told = jnp.nan_to_num(conditions) * ~drop[:, None]
    return z_t * p['w'] + (told @ p['v']).reshape(len(z_t), *LATENT)


def params():
  rng = np.random.default_rng(1)
  return {
    'unet/w': jnp.asarray(rng.normal(size=LATENT), jnp.float32),
    'unet/v': jnp.asarray(
      rng.normal(size=(NUM_CONDITIONS, np.prod(LATENT))), jnp.float32
    ),
  }


def patient_loss(num_examples=0, with_class=False, pair_drops=None):
  losses = denoising_loss.denoising_losses(
    Network(),
    schedules.schedule('linear', 20, 1e-4, 0.2),
    'epsilon',
    0.3,
    Drift(0.0, random_std=0.5),
    hide_from=2,
    hide_probability=0.5,
    pair_drops=pair_drops,
  )
  if with_class:
    losses = prior_preservation.preserving(losses, 2, 1.0)
  return denoising_loss.patient_loss(losses, 2, num_examples)


def cohort(kept):
  """Arrays of the patients `kept`, as if there had never been others."""
  ends = np.cumsum(VOLUMES)
  entries = [np.arange(ends[i] - VOLUMES[i], ends[i]) for i in kept]
  split = types.SimpleNamespace(patient_entries=entries)
  return patients.patient_arrays(split, LATENTS, CONDITIONS)


def mover(loss):
  """kept -> what one step with all of a cohort adds to the parameters, in C."""
  mesh, optimizer = make_mesh(1), optax.sgd(EXPECTED / CLIP_NORM)
  scheme = mechanisms.Poisson(
    num_patients=8,
    batch_size=EXPECTED,
    steps=4,
    clip_norm=CLIP_NORM,
    noise_multiplier=1e-2,  # the same noise is in both sums; little, it rounds less
  )
  step = private_step.private_step(loss, optimizer, mesh, 0.9, scheme, microbatch=0)
  frozen = {
    'prior/z': jnp.asarray(LATENTS[:3]),
    'prior/conditions': jnp.asarray(CONDITIONS[:3]),
  }
  before = params()

  def moved(kept):
    rows, mask = np.arange(CHUNK) % len(kept), np.arange(CHUNK) < len(kept)
    examples = {name: leaf[rows] for name, leaf in cohort(kept).items()}
    own = patients.numbers([NAMES[i] for i in kept])[rows]
    chunk = put_examples(mesh, (examples, mask, own))
    start = put_state(mesh, state.create(params(), optimizer))
    after = step(start, frozen, [chunk], jax.random.key(3), secret_key.new_noise_key(0))
    return {path: np.asarray(after.trained[path] - before[path]) for path in before}

  return moved


def norm(a, b):
  return float(np.sqrt(sum(np.sum(np.square(a[path] - b[path])) for path in a)))


LOSSES = {
  'all volumes': {},
  'every kind of draw': {
    'num_examples': 2,
    'with_class': True,
    'pair_drops': pair_examples.Drops(0.2, 0.2, 0.2, 2),
  },
}


@each_setting
@pytest.mark.parametrize('which', LOSSES)
def test_one_patient_moves_the_step_by_at_most_the_clip_norm(setting, which):
  """Every patient is taken out in turn, also the one with most volumes."""
  with SETTINGS[setting]():
    moved, everyone = mover(patient_loss(**LOSSES[which])), range(len(VOLUMES))
    whole = moved(everyone)
    for patient in everyone:
      without = moved([other for other in everyone if other != patient])
      assert 0.99 < norm(whole, without) <= 1 + 1e-4, NAMES[patient]
