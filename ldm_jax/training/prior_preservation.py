"""Prior preservation: fine-tuning that keeps the class of the pre-trained model.

[Ruiz23] DreamBooth, arXiv 2208.12242, Sec. 3.3: the denoising loss of the subject, with
its rare token in the condition, plus a weight times the loss of samples of the class,
without the token. The samples come from the pre-trained network
(`starting_point.class_samples`).

A patient's loss contains both terms, so private training clips their sum: for any
weight, a patient changes the step by at most the clip norm. Which class samples a
patient is given depends on its key of this step, not on any scan.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldm_jax import prng

# Class samples are passed as frozen parameters: arrays that are never updated.
GROUP = 'prior'
# Folded into a key; different from the counters that the losses use to split it.
DRAW = 0x70726972


def preserving(
  losses: Callable[..., jax.Array], num_draws: int, weight: float
) -> Callable[..., jax.Array]:
  """Losses of a patient's volumes plus weight times the mean loss of class samples.

  Args:
    losses: of `denoising_loss.denoising_losses`.
    num_draws: class samples per call, each with its own draw of (t, noise).
    weight: of [Ruiz23] Eq. 2.

  Returns:
    (params, z, conditions, keys) -> (b,) like `losses`, where params['prior'] has the
    class samples z (n,...,c) and conditions (n,k). All rows are one call of the
    network; those of the class are without the new token. The mean over the patient's
    volumes is
    [Ruiz23] Eq. 2.
  """

  def wrapped(params, z, conditions, keys):
    samples = params[GROUP]
    params = {name: part for name, part in params.items() if name != GROUP}
    keys_class = prng.numbered(jax.random.fold_in(keys[0], DRAW), 1 + num_draws)
    chosen = jax.random.randint(keys_class[0], (num_draws,), 0, len(samples['z']))
    # Class samples lack further parts of a condition, such as an earlier scan.
    lacking = conditions.shape[1] - samples['conditions'].shape[1]
    own = jnp.pad(
      samples['conditions'][chosen], ((0, 0), (0, lacking)), constant_values=jnp.nan
    )
    errors = losses(
      params,
      jnp.concatenate([z, samples['z'][chosen]]),
      jnp.concatenate([conditions, own]),
      jnp.concatenate([keys, keys_class[1:]]),
      untold=jnp.arange(len(z) + num_draws) >= len(z),
    )
    return errors[: len(z)] + weight * errors[len(z) :].mean()

  return wrapped
