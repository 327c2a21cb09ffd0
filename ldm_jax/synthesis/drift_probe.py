"""How the pre-trained network behaves under a drift, for the search before `adapt`.

`Probe` measures distances, latent means and losses over a grid of drifts; the functions
below it are the loss and the short fine-tuning that it uses. Every quantity is a
function of a traced drift value, so that `diffusion.shift.over` compiles a whole grid
as one program.

Latents (n,...,c) are normalised, conditions (n,k) encoded attributes and text.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldm_jax import prng
from ldm_jax.data.batching import epoch_batch
from ldm_jax.diffusion import shift
from ldm_jax.synthesis import generate
from ldm_jax.training import denoising_loss, drift_setting, networks, patients, state
from ldm_jax.types import Array, Config, PyTree, Shape

BATCHED_DRIFTS = 4  # drifts that are sampled as one batch


@dataclasses.dataclass(frozen=True)
class Probe:
  """A network, and the config that says how to sample and fine-tune it.

  Attributes:
    config: of the run; `adapt.drift`, `sample` and `diffusion` are used.
    module: network with apply({'params'}, z_t, t, conditions, drop).
    params: its nested parameters.
    key: PRNG key of all noise drawn here; public.
  """

  config: Config
  module: nn.Module
  params: PyTree
  key: jax.Array

  def sampler(self, shape: Shape) -> Callable[..., jax.Array]:
    """(params, conditions (n,k), keys (n,), drift) -> latents (n, *shape).

    As in the stage `sample`, except that the latents stay normalised.
    """

    def run(params, conditions, keys, value):
      drift = drift_setting.at(self.config.adapt.drift, value, sampling=True)
      return generate.sampler_of(
        self.config,
        self.config.sample,
        networks.applied(self.module),
        shape,
        drift=drift,
      )(params, conditions, keys)

    return run

  def requests(self, conditions: Array) -> tuple[jax.Array, jax.Array]:
    """Conditions (n,k), evenly spaced rows of the given ones, and keys (n,)."""
    count = self.config.adapt.drift.num_samples
    rows = np.linspace(0, len(conditions) - 1, count).round().astype(int)
    keys = generate.request_keys(self.key, np.arange(count))
    return jnp.asarray(conditions[rows]), keys

  def distances(self, latents: Array, conditions: Array, num_steps: int) -> np.ndarray:
    """L1 distances (g,) of generated to given latents, over the grid of drifts.

    For each drift the network is first fine-tuned for `num_steps` steps. With 0 steps
    the pre-trained network is sampled: the distance that a drift of sampling alone
    gives, and where fine-tuning would start. All drifts use the same noise and batches.
    """
    config = self.config
    sample, (rows, keys) = self.sampler(latents.shape[1:]), self.requests(conditions)
    size = min(config.adapt.batch_size, len(latents))
    rows_of = lambda step: epoch_batch(len(latents), size, config.seed, step)
    chosen = np.asarray([rows_of(step) for step in range(num_steps)], int)
    chosen = chosen.reshape(num_steps, size)
    batches = {'z': latents[chosen], 'attributes': conditions[chosen]}
    drawn = jax.random.split(jax.random.fold_in(self.key, 1), (num_steps, size))

    @jax.jit
    def search(params, target, batches, drawn, rows, keys, grid):
      def distance(value):
        tuned = params
        if num_steps:
          tuned = fine_tuned(config, self.module, params, batches, drawn, value)
        return shift.l1_distance(sample(tuned, rows, keys, value), target)

      # One network can sample several drifts as one batch; fine-tuned ones differ.
      return shift.over(distance, grid, 1 if num_steps else BATCHED_DRIFTS)

    grid = np.asarray(config.adapt.drift.grid, np.float32)
    found = search(self.params, latents, batches, drawn, rows, keys, grid)
    return np.asarray(found, float)

  def movement(self, shape: Shape, conditions: Array) -> tuple[np.ndarray, np.ndarray]:
    """Latent mean (c,) of the network's samples, and its gain (c,c) by a drift."""
    size = max(map(abs, self.config.adapt.drift.grid))
    sample, (rows, keys) = self.sampler(shape), self.requests(conditions)

    @jax.jit
    def means(params, rows, keys, values):
      mean = lambda value: shift.channel_mean(sample(params, rows, keys, value))
      return shift.over(mean, values, BATCHED_DRIFTS)

    values = shift.probes(shape[-1], size).astype(np.float32)
    found = np.asarray(means(self.params, rows, keys, values), float)
    return shift.gains(found, size)

  def losses(self, names: Sequence[str], examples: Mapping[str, Array]) -> np.ndarray:
    """Denoising losses (p,g) of patients over the grid.

    A patient's draws depend on the patient's name only, not on the other patients. The
    sensitivity of `private_loss` relies on this.

    Args:
      names: (p,) of the patients.
      examples: of `training.patients.patient_arrays`.
    """
    key = jax.random.fold_in(prng.threefry(self.key), 2)
    fold = jax.vmap(lambda number: jax.random.fold_in(key, number))
    keys = fold(patients.numbers(names))
    grid = np.asarray(self.config.adapt.drift.grid, np.float32)
    return np.asarray(self._losses(self.params, examples, keys, grid), float).T

  @functools.cached_property
  def _losses(self):
    @jax.jit
    def losses(params, examples, keys, grid):
      one = lambda value: mean_losses(
        self.config, self.module, params, examples, keys, value
      )
      return shift.over(one, grid)

    return losses


def losses_of(
  config: Config, module: nn.Module, value: Array
) -> Callable[..., jax.Array]:
  """The denoising losses of `adapt` with a drift value, which may be traced."""
  drift = drift_setting.at(config.adapt.drift, value)
  schedule = networks.schedule(config)
  return denoising_loss.configured_losses(
    config, module, schedule, drift, adapting=True
  )


def mean_losses(
  config: Config,
  module: nn.Module,
  params: PyTree,
  examples: Mapping[str, Array],
  keys: jax.Array,
  value: Array,
) -> jax.Array:
  """(p,) denoising losses of patients under the untrained network with a drift value.

  A patient's loss is the mean over the patient's volumes and over
  `adapt.drift.num_draws` draws of (t, noise) for each, as in training. The draws depend
  on the patient's key only. All values of a grid use the same draws, so that
  differences are due to the drift, and no patient's loss depends on another patient.

  Args:
    config, module, value: of the run, its denoiser, and the drift value.
    params: nested parameters of the network.
    examples: of `training.patients.patient_arrays`.
    keys: (p,).
  """
  losses = losses_of(config, module, value)
  one = denoising_loss.patient_loss(losses, config.adapt.drift.num_draws)
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
