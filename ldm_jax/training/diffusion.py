"""The denoising loss on latents (b,...,c) with attributes (b,k).

Tags: [Ho20] denoising diffusion; [Salimans22] v-prediction; [Ho22] classifier-free
guidance; [Yeganeh25] latent drifting.
"""

import jax
import jax.numpy as jnp
import optax

from ldm_jax.diffusion import drift as drifting
from ldm_jax.diffusion import process
from ldm_jax.training.state import unflatten


def denoising_losses(module, schedule, prediction, drop_probability, drift=None):
  """Builds (params, z_0, attributes, keys) -> (b,) mean squared errors.

  Each example draws its own time (uniform over the schedule), noise and whether its
  condition is dropped, from its own key. With a drift the noise is N(drift, 1) and
  the network learns to predict the drifted noise ([Yeganeh25] Eq. 4 as a prior).
  """
  num_timesteps = schedule.num_timesteps

  def losses(params, z_0, attributes, keys):
    key_t, key_eps, key_drop = jnp.moveaxis(jax.vmap(_split3)(keys), 1, 0)
    t = jax.vmap(lambda key: jax.random.randint(key, (), 0, num_timesteps))(key_t)
    eps = jax.vmap(lambda key: jax.random.normal(key, z_0.shape[1:]))(key_eps)
    eps = drifting.shift_noise(eps, drift)
    drop = jax.vmap(lambda key: jax.random.bernoulli(key, drop_probability))(key_drop)
    alpha_bar_t = schedule.alpha_bar[t]
    z_t = process.add_noise(z_0, eps, alpha_bar_t)
    output = module.apply({'params': params}, z_t, t, attributes, drop)
    target = process.training_target(z_0, eps, alpha_bar_t, prediction)
    error = jnp.square(output.astype(jnp.float32) - target)
    return error.reshape(len(error), -1).mean(1)

  return losses


def example_losses(losses):
  """The loss of `training.step` over batches {'z', 'attributes'}."""

  def wrapped(trained, frozen, batch, keys, step):
    del step
    params = unflatten({**frozen, **trained})
    return losses(params, batch['z'], batch['attributes'], keys), {}

  return wrapped


def optimizer(learning_rate, num_steps):
  """Adam with a short warm-up and a cosine decay; gradients clipped to norm 1."""
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, learning_rate, min(100, num_steps // 10 + 1), num_steps, 0.05 * learning_rate
  )
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def patient_example_losses(loss):
  """The loss of `training.step` over patients instead of volumes, without privacy."""

  def wrapped(trained, frozen, batch, keys, step):
    del step
    errors = jax.vmap(lambda example, key: loss(trained, frozen, example, key))(
      batch, keys
    )
    return errors, {}

  return wrapped


def patient_loss(losses, noise_multiplicity):
  """The loss of one patient, for `privacy.gradients`.

  Builds (trained, frozen, example, key) -> (), the mean over the patient's volumes and
  over `noise_multiplicity` draws of (t, noise) for each: all of it is averaged before
  the gradient is clipped, so the patient stays the unit.

  The example holds 'z' (m,...,c), 'attributes' (m,k), 'present' (m,) bool; volumes
  that are not present (patients may have fewer than m) count nothing.
  """

  def wrapped(trained, frozen, example, key):
    params = unflatten({**frozen, **trained})
    repeat = lambda values: jnp.repeat(values, noise_multiplicity, axis=0)
    present = repeat(example['present']).astype(jnp.float32)
    keys = jax.random.split(key, len(present))
    errors = losses(params, repeat(example['z']), repeat(example['attributes']), keys)
    return jnp.sum(errors * present) / jnp.maximum(present.sum(), 1.0)

  return wrapped


def _split3(key):
  return jax.random.split(key, 3)
