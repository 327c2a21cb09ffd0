"""Training of the autoencoder: (b,d,h,w,1) volumes of public patients -> latents.

With label maps beside them (b,d,h,w,1 + k), which have a loss of their own
(`label_loss`); the other losses compare the intensities.

[Kingma14] Auto-encoding variational Bayes; [Kingma16] Inverse autoregressive flow,
1606.04934, App. C.8: free bits; [Rombach22] Latent diffusion.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldm_jax.models.critics.planes import per_example
from ldm_jax.training import (
  adversarial_loss,
  alarms,
  codebook,
  equivariance,
  label_loss,
  optimizers,
)
from ldm_jax.training.packing import Packing
from ldm_jax.training.plain_step import ExampleLosses
from ldm_jax.training.state import by_prefix, clipped_adam, learning_rates, unflatten
from ldm_jax.types import Array, Config


def example_losses(
  module: nn.Module,
  section: Config,
  perceptual: Callable[..., jax.Array] | None = None,
  discriminator: nn.Module | None = None,
  label_weights: Array | None = None,
) -> ExampleLosses:
  """Builds the loss for `training.plain_step`: reconstruction and latent loss per
  example.

  The KL divergence to N(0, I) is averaged over latent elements ([Kingma14] Eq. 10
  divided by their number), so that its weight has the same meaning at every size. The
  weight increases linearly over `kl_warmup` steps, which prevents posterior collapse.

  Args:
    module: models.autoencoders.autoencoder.Autoencoder.
    section: config.autoencoder.
    perceptual: (x, x_hat, keys) -> (b,), or None.
    discriminator: module whose parameters are under 'discriminator', or None.
    label_weights: (k,) of the classes whose label maps are beside the volumes; None
      for volumes alone.
  """
  latent = _discrete if module.num_codes else _gaussian
  num_labels = 0 if label_weights is None else len(label_weights)

  turns = equivariance.is_used(section)

  def losses(trained, frozen, batch, keys, step):
    x, params = batch['x'], unflatten({**frozen, **trained})
    if num_labels:
      seen = label_loss.hide(x, keys, num_labels, section.labels.hidden)
      batch = {**batch, 'x': seen}
    z, rate, metrics = latent(module, params, section, batch, keys, step)
    if turns:
      early = step < equivariance.num_steps(section)
      z, rate = jnp.where(early, z, jax.lax.stop_gradient(z)), early * rate
      x, z = equivariance.transform(x, z, keys, section.equivariance, early)
    x_hat = module.apply({'params': params}, z, method='decode')
    if num_labels:
      logits, truth = x_hat[..., -num_labels:], x[..., -num_labels:]
      x, x_hat = x[..., :-num_labels], x_hat[..., :-num_labels]
      metrics['labels'] = label_loss.losses(logits, truth, label_weights)
      rate += section.labels.weight * metrics['labels']

    def reconstruction(x_hat):
      l1 = per_example(jnp.abs(x_hat - x), len(x))
      mse = per_example(jnp.square(x_hat - x), len(x))
      total = section.l1_weight * l1 + section.mse_weight * mse
      if perceptual is not None:
        total += section.perceptual.weight * perceptual(x, x_hat, keys)
      return total

    metrics['l1'] = per_example(jnp.abs(x_hat - x), len(x))
    if discriminator is None:
      return reconstruction(x_hat) + rate, metrics
    options = section.adversarial
    total, played = adversarial_loss.losses(
      discriminator,
      params['discriminator'],
      x,
      x_hat,
      reconstruction,
      options.weight,
      options.adaptive,
    )
    return total + rate, {**metrics, **played}

  return losses


def _gaussian(module, params, section, batch, keys, step):
  """Latent sampled from the posterior, weighted KL divergence (b,), metrics."""
  mean, std = module.apply({'params': params}, batch['x'], method='encode')
  eps = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
  elements = 0.5 * (mean**2 + std**2 - 1) - jnp.log(std)
  channels = elements.reshape(len(mean), -1, mean.shape[-1]).mean(1)
  penalised = jnp.maximum(channels, section.free_bits).mean(1)
  ramp = jnp.minimum(step / max(section.kl_warmup, 1), 1.0)
  metrics = {'kl': channels.mean(1)}
  return mean + std * eps, section.kl_weight * ramp * penalised, metrics


def _discrete(module, params, section, batch, keys, step):
  """Latent before the codebook (`decode` quantises), its losses (b,), metrics."""
  del step
  z, _ = module.apply({'params': params}, batch['x'], method='encode')
  found = module.apply(
    {'params': params},
    z,
    batch['picked'],
    keys,
    section.codebook.learned_by,
    method='codebook_losses',
  )
  rate = found['codebook'] + section.codebook.commitment * found['commitment']
  return z, rate, {name: found[name] for name in ('commitment', 'perplexity')}


# What keeps its own entries when parameters are packed: their optimisers are special.
APART = (adversarial_loss.PREFIX, codebook.PREFIX)


def optimizer(section: Config, packing: Packing) -> optax.GradientTransformation:
  """`section.optimizer`; codebook and discriminator have their own."""
  schedule = learning_rates(section.learning_rate, section.steps, warm_up=50)
  network = optimizers.public(
    section.optimizer, packing, section.learning_rate, section.steps, warm_up=50
  )
  if equivariance.is_used(section):
    first = equivariance.num_steps(section)
    network = optax.chain(network, equivariance.decoder_alone(packing, first))
  special: dict[str, optax.GradientTransformation] = {}
  if section.adversarial.weight:
    # Low momentum, because the other network changes too. [Esser21]
    rate = section.adversarial.learning_rate
    special[adversarial_loss.PREFIX] = clipped_adam(rate, b1=0.5, b2=0.9)
  if section.model.num_codes:
    options = section.codebook
    learner = optax.adam(schedule) if options.learned_by == 'gradient' else None
    special[codebook.PREFIX] = codebook.optimizer(
      learner, options.decay, options.revive_below
    )
  return by_prefix(network, special) if special else network


def latent_statistics(
  latents: np.ndarray, std: str = 'channel'
) -> dict[str, list[float]]:
  """Per-channel mean and standard deviation of public latents (n,...,c).

  Args:
    latents: (n,...,c).
    std: 'channel', or 'latent': all channels get the largest standard deviation, which
      keeps their relative sizes while none exceeds the noise.

  Returns:
    Dict of lists of c floats, 'mean' and 'std', to be stored with the model.

  Raises:
    ValueError: a channel is very large or not finite, or one (for 'latent': every one)
      is constant, because the autoencoder collapsed or diverged.
  """
  axes = tuple(range(latents.ndim - 1))
  means, deviations = latents.mean(axes), latents.std(axes)
  some_vary = std == 'latent' and bool((deviations >= alarms.CONSTANT).any())
  found = alarms.of_latents(latents, may_be_constant=some_vary)
  if std == 'latent':
    deviations = np.full_like(deviations, deviations.max())
  if found:
    raise ValueError(
      f'Over the public cohort, {"; ".join(found)}. A denoiser cannot learn from such '
      'latents: lower autoencoder.kl_weight or autoencoder.learning_rate, or train '
      'longer (autoencoder.steps), and run again.'
    )
  return {'mean': means.tolist(), 'std': deviations.tolist()}
