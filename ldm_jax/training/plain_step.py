"""The train step without privacy: mean gradient over a global batch, on any mesh."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ldm_jax.models import platform
from ldm_jax.training.mesh import EXAMPLES, state_shardings
from ldm_jax.training.state import TrainState, advance

# (trained, frozen, batch, keys (b,), step) -> (losses (b,), dict of metrics (b,)).
ExampleLosses = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


def plain_step(
  example_losses: ExampleLosses,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  ema_decay: float,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Builds the jitted step for losses that treat every example independently.

  Args:
    example_losses: (trained, frozen, batch, keys, step) -> (losses (b,), metrics: dict
      of (b,)), with one PRNG key per example.
    optimizer: an optax transformation for the flat dict of trained parameters.
    mesh: the devices; the batch's leading axis is split over all of them.
    ema_decay: decay of the parameter average.

  Returns:
    (state, frozen, batch, key) -> (state, metrics). The key of the example at position
    i of the global batch is fold_in(fold_in(key, step), i), on any number of devices.
  """

  def local_gradient(trained, frozen, batch, keys, step):
    def mean_loss(trained):
      losses, metrics = example_losses(trained, frozen, batch, keys, step)
      return losses.mean(), {
        'loss': losses.mean(),
        **{name: value.mean() for name, value in metrics.items()},
      }

    gradient, metrics = jax.grad(mean_loss, has_aux=True)(trained)
    return jax.lax.pmean((gradient, metrics), ('data', 'fsdp'))

  global_gradient = jax.shard_map(
    platform.of_mesh(mesh, local_gradient),
    mesh=mesh,
    in_specs=(P(), P(), EXAMPLES, EXAMPLES, P()),
    out_specs=P(),
    check_vma=False,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, frozen, batch, key):
    keys = example_keys(key, state.step, len(jax.tree.leaves(batch)[0]))
    gradient, metrics = global_gradient(state.trained, frozen, batch, keys, state.step)
    state = advance(state, gradient, optimizer, ema_decay)
    return jax.lax.with_sharding_constraint(
      state, state_shardings(mesh, state)
    ), metrics

  return step


def example_keys(key: jax.Array, step: int | jax.Array, count: int) -> jax.Array:
  """Keys (count,) of the examples at positions 0 ... count-1 of one step."""
  key = jax.random.fold_in(key, step)
  return jax.vmap(lambda position: jax.random.fold_in(key, position))(jnp.arange(count))
