"""Learning the autoencoder: (b,d,h,w,1) volumes of public patients -> latents.

Tags: [Kingma14] auto-encoding variational Bayes; [Rombach22] latent diffusion.
"""

import jax
import jax.numpy as jnp
import optax

from ldm_jax.training.state import unflatten


def example_losses(module, l1_weight, mse_weight, kl_weight, kl_warmup):
  """Builds the loss of `training.step`: weighted L1, MSE and KL an example.

  The KL divergence to N(0, I) is per latent element ([Kingma14] Eq. 10, divided by the
  element count), so that its weight means the same at every size; it grows linearly
  over `kl_warmup` steps, which keeps the posterior from collapsing.
  """

  def losses(trained, frozen, batch, keys, step):
    x = batch['x']
    params = {'params': unflatten({**frozen, **trained})}
    mean, std = module.apply(params, x, method='encode')
    eps = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    x_hat = module.apply(params, mean + std * eps, method='decode')
    l1 = _per_example(jnp.abs(x_hat - x))
    mse = _per_example(jnp.square(x_hat - x))
    kl = _per_example(0.5 * (mean**2 + std**2 - 1) - jnp.log(std))
    ramp = jnp.minimum(step / max(kl_warmup, 1), 1.0)
    loss = l1_weight * l1 + mse_weight * mse + kl_weight * ramp * kl
    return loss, {'l1': l1, 'kl': kl}

  return losses


def optimizer(learning_rate, num_steps):
  """Adam with a short warm-up and a cosine decay; gradients clipped to norm 1."""
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, learning_rate, min(50, num_steps // 10 + 1), num_steps, 0.05 * learning_rate
  )
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def latent_statistics(latents):
  """Per-channel mean and standard deviation of public latents (n,...,c).

  Returns:
    Dict of lists of c floats, to be stored with the model and applied in one place.

  Raises:
    ValueError: if a channel is constant or not finite: the autoencoder collapsed.
  """
  axes = tuple(range(latents.ndim - 1))
  mean, std = latents.mean(axes), latents.std(axes)
  for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
    if not (jnp.isfinite(m) and jnp.isfinite(s)) or s < 1e-4:
      raise ValueError(
        f'Latent channel {channel} has mean {m:.3g} and standard deviation {s:.3g} '
        'over the public cohort: the autoencoder collapsed or diverged. Lower '
        'autoencoder.kl_weight or autoencoder.learning_rate and run again.'
      )
  return {'mean': [float(m) for m in mean], 'std': [float(s) for s in std]}


def _per_example(values):
  return values.reshape(len(values), -1).mean(1)
