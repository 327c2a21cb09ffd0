"""Losses and short trainings of a network, for the search for a drift before `adapt`.

Everything is a function of a traced drift value, so that `diffusion.shift.over` can
compile a whole grid as one program. Latents z (b,...,c), conditions (b,k), keys (b,).
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import optax

from ldm_jax.training import diffusion as denoising
from ldm_jax.training import drifted, networks, state
from ldm_jax.types import Array, Config, PyTree


def losses_of(
  config: Config, module: nn.Module, value: Array
) -> Callable[..., jax.Array]:
  """The denoising losses of `adapt` with a drift value, which may be traced."""
  drift = drifted.at(config.adapt.drift, value)
  schedule = networks.schedule(config)
  return denoising.configured_losses(config, module, schedule, drift, adapting=True)


def mean_losses(
  config: Config,
  module: nn.Module,
  params: PyTree,
  examples: Mapping[str, Array],
  keys: jax.Array,
  value: Array,
) -> jax.Array:
  """(p,) denoising losses of patients under the untrained network with a drift value.

  A patient's loss is the mean over his or her volumes and over `adapt.drift.num_draws`
  draws of (t, noise) for each, as in training. The draws follow from the patient's key
  alone. All values of a grid use the same draws, so that differences are due to the
  drift, and no patient's loss depends on another patient.

  Args:
    config, module, value: of the run, its denoiser, and the drift value.
    params: nested parameters of the network.
    examples: of `training.private.patient_arrays`.
    keys: (p,).
  """
  losses = losses_of(config, module, value)
  one = denoising.patient_loss(losses, config.adapt.drift.num_draws)
  flat = state.flatten(params)
  return jax.lax.map(lambda pair: one(flat, {}, *pair), (examples, keys))


def fine_tuned(
  config: Config,
  module: nn.Module,
  params: PyTree,
  batches: Mapping[str, Array],
  keys: jax.Array,
  value: Array,
) -> PyTree:
  """The parameters after a short fine-tuning of all of them, without privacy.

  Args:
    config, module, value: of the run, its denoiser, and the drift value.
    params: nested parameters to start from.
    batches: {'z': (s,b,...,c), 'attributes': (s,b,k)}, one entry per step.
    keys: (s,b).
  """
  losses = losses_of(config, module, value)
  optimizer = optax.adam(config.adapt.learning_rate)

  def step(carry, at):
    params, memory = carry
    batch, keys = at
    loss = lambda params: losses(params, batch['z'], batch['attributes'], keys).mean()
    updates, memory = optimizer.update(jax.grad(loss)(params), memory, params)
    return (optax.apply_updates(params, updates), memory), None

  (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), (batches, keys))
  return params
