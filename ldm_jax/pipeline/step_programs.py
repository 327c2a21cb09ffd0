"""The train steps of a config as programs, from shapes alone: no weights, no scans.

They are those that the stages `diffusion` and `adapt` run, on any mesh of devices,
which need not be there.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax import prng
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.pipeline import fine_tune, pretrain
from ldm_jax.privacy import compensated_sum
from ldm_jax.training import (
  denoising_loss,
  methods,
  networks,
  prior_preservation,
  private_run,
  private_step,
  state,
)
from ldm_jax.training.mesh import EXAMPLES, state_shardings
from ldm_jax.types import Config, PyTree, Shape


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled part of a step.

  Attributes:
    name: for messages.
    times: how often a step runs it.
    function: jitted.
    arguments: arrays as shapes with shardings.
    beside: further arrays that are in memory while it runs.
  """

  name: str
  times: int
  function: Any
  arguments: tuple
  beside: tuple = ()


def plain(config: Config, schema: Schema, mesh: Mesh) -> list[Program]:
  """The step of the stage `diffusion`.

  Args:
    config: of the run; the mesh's devices divide its diffusion.batch_size.
    schema: attributes of the cohorts.
    mesh: devices.
  """
  shapes, latent_shape = networks.denoiser_shapes(config, schema)
  denoiser, schedule = networks.denoiser(config, schema), networks.schedule(config)
  flat = state.flatten(shapes)
  packing, optimizer, step = pretrain.step(config, denoiser, schedule, flat, mesh)
  begun = _stored(mesh, lambda p: state.create(packing.pack(p), optimizer), flat)
  batch = _rows(
    mesh,
    config.diffusion.batch_size,
    {
      'z': (latent_shape, jnp.float32),
      'attributes': ((_num_conditions(config, schema),), jnp.float32),
    },
  )
  return [Program('step', 1, step, (begun, {}, batch, _key()))]


def private(
  config: Config, schema: Schema, num_patients: int, num_volumes: int, mesh: Mesh
) -> list[Program]:
  """The step of the stage `adapt` under privacy: sums of chunks, noise, update.

  Args:
    config: of the run; the mesh's devices divide its adapt.privacy.chunk_size.
    schema: attributes of the cohorts.
    num_patients: of the private cohort.
    num_volumes: the most that a patient has, with those of `adapt.augment`.
    mesh: devices.

  Raises:
    ValueError: adapt.privacy or adapt.method does not fit cohort or network.
  """
  section, privacy = config.adapt, config.adapt.privacy
  trained, frozen, latent_shape = parameters(config, schema)
  denoiser, schedule = networks.denoiser(config, schema), networks.schedule(config)
  losses = denoising_loss.configured_losses(config, denoiser, schedule, adapting=True)
  scheme = private_run.configured(privacy, num_patients, section.steps).prepared()
  scheme = dataclasses.replace(scheme, noise_multiplier=1.0)  # any: it costs the same
  _, optimizer, step = fine_tune.private_step_of(config, losses, mesh, scheme)
  begun = _stored(
    mesh,
    lambda p: private_step.begin(state.create(p, optimizer, section.ema_decay), scheme),
    trained,
  )
  frozen = _stored(mesh, lambda p: p, frozen)
  width = _num_conditions(config, schema)
  width += earlier_visit.size(latent_shape) if section.pairs.use else 0
  examples = _rows(
    mesh,
    privacy.chunk_size,
    {
      'z': ((num_volumes, *latent_shape), jnp.float32),
      'attributes': ((num_volumes, width), jnp.float32),
      'present': ((num_volumes,), jnp.bool_),
    },
  )
  rows = _rows(
    mesh,
    privacy.chunk_size,
    {'mask': ((), jnp.bool_), 'numbers': ((), jnp.uint32)},
  )
  chunk = examples, rows['mask'], rows['numbers']
  scalar = lambda dtype: jax.ShapeDtypeStruct((), dtype, sharding=_everywhere(mesh))
  clip_norm = scalar(jnp.float32)
  numbers = scalar(jnp.int32), _key()
  everywhere = _everywhere(mesh)
  summed = _like(everywhere, step.zeros, begun.trained)
  total = _like(everywhere, compensated_sum.rounded, summed)
  memory = _like(step.of_memory, step.start, total) if step.remembers else ()
  noisy = lambda *arguments: step.privatise(*arguments)[0]
  gradient = _like(everywhere, noisy, summed, memory, *numbers, clip_norm)
  rest = begun.opt_state, begun.ema
  chunks = math.ceil(scheme.expected_batch / privacy.chunk_size)
  sums = summed, begun.trained, frozen, chunk, *numbers, clip_norm
  return [
    Program('sum of a chunk', chunks, step.accumulate, sums, (*rest, memory)),
    Program(
      'noise',
      1,
      step.privatise,
      (summed, memory, *numbers, clip_norm),
      (begun, frozen),
    ),
    Program('update', 1, step.update, (begun, gradient), (frozen, memory)),
  ]


def parameters(config: Config, schema: Schema) -> tuple[dict, dict, Shape]:
  """Shapes of the flat parameters that `adapt` trains and does not; of a latent.

  Few parameters that no gradient reaches (`training.unreachable`) count as trained.

  Raises:
    ValueError: the network lacks what the method trains.
  """
  section = config.adapt
  shapes, latent_shape = networks.denoiser_shapes(config, schema)
  flat = state.flatten(shapes)
  key = jax.eval_shape(lambda: prng.key(0))
  new = jax.eval_shape(lambda p, k: methods.added(section, p, k), flat, key)
  trained, frozen = methods.partition(section.method, {**flat, **new})
  if section.pairs.use:
    denoiser = networks.denoiser(config, schema)
    trained = {**trained, **earlier_visit.added(denoiser, latent_shape)}
  if methods.prior_weight(section):
    size, width = section.prior.num, _num_conditions(config, schema)
    group, struct = prior_preservation.GROUP, jax.ShapeDtypeStruct
    samples = {
      f'{group}/z': struct((size, *latent_shape), jnp.float32),
      f'{group}/conditions': struct((size, width), jnp.float32),
    }
    frozen = {**frozen, **samples}
  return trained, frozen, latent_shape


def bytes_a_device(tree: PyTree) -> int:
  """Bytes that one device holds of arrays given as shapes with shardings."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    shape = leaf.shape
    if getattr(leaf, 'sharding', None) is not None:
      shape = leaf.sharding.shard_shape(shape)
    size = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
    total += math.prod(shape) * size
  return total


def _num_conditions(config, schema):
  text = config.diffusion.text
  return len(schema) + (text.num_tokens * text.width if text.files else 0)


def _stored(mesh, begin, flat):
  """Shapes of begin(flat), placed as stored state is."""
  tree = jax.eval_shape(begin, flat)
  return _placed(tree, state_shardings(mesh, tree))


def _like(place, function, *arguments):
  """Shapes of what a function returns, all with one sharding."""
  tree = jax.eval_shape(function, *arguments)
  return _placed(tree, jax.tree.map(lambda leaf: place, tree))


def _placed(tree, shardings):
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    tree,
    shardings,
  )


def _rows(mesh: Mesh, count: int, kinds: Mapping[str, tuple]):
  """Shapes (count, ...) of examples that are split over the mesh."""
  split = NamedSharding(mesh, EXAMPLES)
  return {
    name: jax.ShapeDtypeStruct((count, *shape), dtype, sharding=split)
    for name, (shape, dtype) in kinds.items()
  }


def _everywhere(mesh):
  return NamedSharding(mesh, P())


def _key():
  return jax.eval_shape(lambda: prng.key(0))
