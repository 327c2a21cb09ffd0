"""Prior preservation: fine-tuning that still knows the class it came from.

[Ruiz23] DreamBooth, arXiv 2208.12242, Sec. 3.3: to the denoising loss of the subject,
called by its rare token, is added a weight times that of samples of the class, called
without it. The samples come from the pre-trained network (`readying.class_samples`).

A patient's loss holds both terms, so that private training clips their sum: whatever
the weight, a patient moves the step by at most the clip norm. Which class sample a
patient is given follows from its key of this step, not from any scan.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Class samples travel with the frozen parameters: arrays that are read and never move.
GROUP = 'prior'
# Folded into a key; far from the counters by which the losses split it.
DRAW = 0x70726972


def preserving(
  losses: Callable[..., jax.Array], num_draws: int, weight: float
) -> Callable[..., jax.Array]:
  """Losses of a patient's volumes plus weight times the mean loss of class samples.

  Args:
    losses: of `diffusion.denoising_losses`.
    num_draws: class samples a call, each with a draw of (t, noise) of its own.
    weight: of [Ruiz23] Eq. 2.

  Returns:
    (params, z, conditions, keys) -> (b,) like `losses`, where params['prior'] holds the
    class samples z (n,...,c) and conditions (n,k). All rows are one call of the
    network, which is not told the new token in those of the class. A mean over the
    patient's volumes is [Ruiz23] Eq. 2.
  """

  def wrapped(params, z, conditions, keys):
    samples = params[GROUP]
    params = {name: part for name, part in params.items() if name != GROUP}
    keys_class = jax.random.split(jax.random.fold_in(keys[0], DRAW), 1 + num_draws)
    chosen = jax.random.randint(keys_class[0], (num_draws,), 0, len(samples['z']))
    # Whatever else a patient's condition tells, an earlier scan, say, the class lacks.
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
