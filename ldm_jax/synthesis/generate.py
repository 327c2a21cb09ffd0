"""Requested attributes -> latents -> volumes: (n, k) -> (n, d, h, w, 1).

`sampler_of` is the one place where a config becomes a sampler; `make_sampler` is the
sampler itself.

`apply_denoiser(params, z_t, t, attributes, drop) -> output` is any conditional
denoiser: z_t (b, ..., c) normalised latents, t (b,) int, attributes (b, k) float32
with NaN for missing, drop (b,) bool, true where the condition is withheld. Latents
are normalised as (z - mean) / std, mean and std scalars or (c,).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax import prng
from ldm_jax.data.batching import chunks
from ldm_jax.diffusion import drift as drifts
from ldm_jax.diffusion import grid, process, solvers
from ldm_jax.diffusion import guidance as guiding
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.training import encoding, networks
from ldm_jax.training.mesh import EXAMPLES
from ldm_jax.types import Array, Config, Progress, PyTree, Shape

_OPTIONAL = ('solver', 'eta', 'spacing')  # settings that only `config.sample` has


def make_sampler(
  apply_denoiser: Callable,
  schedule: AnySchedule,
  latent_shape: Shape,
  *,
  num_steps: int,
  solver: str = 'ddim',
  eta: float = 0.0,
  prediction: str = 'epsilon',
  spacing: str = 'linspace',
  guidance: Array | float = 1.0,
  drift: Any = None,
  latent_mean: Array = 0.0,
  latent_std: Array = 1.0,
  clip_z_0: float | None = None,
  mesh: Mesh | None = None,
) -> Callable[[PyTree, Array, jax.Array], jax.Array]:
  """Returns jitted sample(params, attributes (b, k), keys (b,)) -> z_0 (b, ..., c).

  One `lax.scan` per run and one compilation per batch size. A row depends only on its
  own attributes and key, not on the device. Guidance other than 1 doubles the batch
  inside the scan. The initial noise is drawn inside the compiled function and its
  buffer is reused by the scan, so there is no argument to donate.

  Args:
    apply_denoiser: see the module.
    schedule: `diffusion.schedules.Schedule` the denoiser was trained with.
    latent_shape: (..., c) of one latent.
    num_steps: denoiser calls per sample.
    solver, eta, prediction, spacing, clip_z_0: see `diffusion.solvers.sample`.
    guidance: 0 is unconditional, 1 conditional, above 1 strengthens the condition; it
      and the drift's value may be traced, to compile once for many of them.
    drift: `diffusion.drift.Drift` of the noise, or its value: a scalar or (c,).
    latent_mean, latent_std: statistics of the latents, by which z_0 is denormalised.
    mesh: of `training.mesh`; the rows are split over its devices, see `by_rows`.

  Raises:
    ValueError: a drift that does not fit the channels, or an invalid solver, eta,
      spacing, number of steps or prediction.
  """
  drifts.check_drift(drift, latent_shape[-1], schedule, solver)
  grid.time_grid(schedule.num_timesteps, num_steps, spacing)
  process.check_prediction(prediction, schedule)
  solvers.check_solver(solver, eta)

  def sample(params, attributes, keys):
    attributes = jnp.asarray(attributes, jnp.float32)
    denoise = conditional(apply_denoiser, params, attributes, guidance)
    noise = solvers.initial_noise(keys, (attributes.shape[0], *latent_shape))
    z_0 = solvers.sample(
      drifts.centred(denoise, schedule, drift, prediction),
      drifts.start(noise, drift),
      schedule,
      num_steps,
      keys,
      solver=solver,
      eta=eta,
      prediction=prediction,
      spacing=spacing,
      clip_z_0=clip_z_0,
      after_step=drifts.after_step(drift),
    )
    return encoding.denormalise(z_0, latent_mean, latent_std)

  return by_rows(sample, mesh, num_shared=1)


def sampler_of(
  config: Config,
  section: Config,
  apply_denoiser: Callable,
  latent_shape: Shape,
  *,
  drift: Any = None,
  mesh: Mesh | None = None,
  latent_mean: Array = 0.0,
  latent_std: Array = 1.0,
) -> Callable[[PyTree, Array, jax.Array], jax.Array]:
  """`make_sampler` with the diffusion process of a config and one section's settings.

  Args:
    config: of the run; gives the schedule and the prediction.
    section: `config.sample` or `config.adapt.prior`: steps and guidance, and solver,
      eta and spacing where the section has them.
    apply_denoiser, latent_shape, drift, mesh, latent_mean, latent_std: see
      `make_sampler`.
  """
  optional = {name: section[name] for name in _OPTIONAL if name in section}
  return make_sampler(
    apply_denoiser,
    networks.schedule(config),
    latent_shape,
    num_steps=section.steps,
    prediction=config.diffusion.prediction,
    guidance=section.guidance,
    drift=drift,
    latent_mean=latent_mean,
    latent_std=latent_std,
    mesh=mesh,
    **optional,
  )


def by_rows(
  function: Callable, mesh: Mesh | None = None, num_shared: int = 0
) -> Callable:
  """Compiles function(*shared, *rows) -> rows so that each device computes its rows.

  Rows are arrays (b, ...). Shared arguments (parameters) are copied to every device.
  The devices do not communicate. A batch that the number of devices does not divide is
  padded with copies of its last row; the padding is removed from the result.

  Args:
    function: its rows must not depend on each other.
    mesh: with the axes `data` and `fsdp`; None is the default device.
    num_shared: how many of the first arguments are shared.
  """
  if mesh is None or mesh.size == 1:
    return jax.jit(function)

  run = jax.jit(
    jax.shard_map(
      lambda shared, rows: function(*shared, *rows),
      mesh=mesh,
      in_specs=(P(), EXAMPLES),
      out_specs=EXAMPLES,
      check_vma=False,
    )
  )
  everywhere, by_example = NamedSharding(mesh, P()), NamedSharding(mesh, EXAMPLES)

  def split(*arguments):
    shared, rows = arguments[:num_shared], arguments[num_shared:]
    count = rows[0].shape[0]
    filled = np.minimum(np.arange(-(-count // mesh.size) * mesh.size), count - 1)
    rows = tuple(row if len(filled) == count else row[filled] for row in rows)
    # Parameters read from a checkpoint are on one device only.
    made = run(jax.device_put(shared, everywhere), jax.device_put(rows, by_example))
    return made[:count]

  return split


def conditional(
  apply_denoiser: Callable,
  params: PyTree,
  attributes: jax.Array,
  guidance: Array | float = 1.0,
  against: jax.Array | None = None,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Binds params and attributes (b, k): returns denoise(z_t, t) -> float32 output.

  Guidance extrapolates away from the output under `against` (b, k), or from the
  unconditional output when it is None; both halves run as one batch. With a guidance of
  1, unless it is traced, only the conditional output is computed.
  """
  num_examples = attributes.shape[0]
  keep = jnp.zeros(num_examples, bool)

  def plain(z_t, t):
    return apply_denoiser(params, z_t, t, attributes, keep).astype(z_t.dtype)

  if not isinstance(guidance, jax.core.Tracer) and guidance == 1:
    return plain
  second = attributes if against is None else against
  drop = jnp.concatenate([keep, keep if against is not None else ~keep])
  both = jnp.concatenate([attributes, second])

  def guided(z_t, t):
    z_t, t = jnp.concatenate([z_t, z_t]), jnp.concatenate([t, t])
    output = apply_denoiser(params, z_t, t, both, drop).astype(z_t.dtype)
    return guiding.guide(output[:num_examples], output[num_examples:], guidance)

  return guided


def request_keys(base_key: jax.Array, request_ids: Array) -> jax.Array:
  """Returns one key per request, fold_in(base_key, id), ids in [0, 2^32).

  Raises:
    ValueError: an id that is not an integer in this range.
  """
  ids = np.asarray(request_ids)
  if ids.size and not (np.issubdtype(ids.dtype, np.integer) and ids.min() >= 0):
    raise ValueError(
      f'Expected request ids that are integers from 0 to 2^32 - 1, got '
      f'{request_ids!r}; pass the number of each request in the list.'
    )
  if ids.size and ids.max() >= 2**32:
    raise ValueError(
      f'Expected request ids below 2^32, got {ids.max()}; number the requests from 0.'
    )
  if not jnp.issubdtype(base_key.dtype, jax.dtypes.prng_key):
    base_key = prng.threefry(base_key)
  return jax.vmap(lambda i: jax.random.fold_in(base_key, i))(
    jnp.asarray(ids.astype(np.uint32))
  )


def generate(
  sample: Callable,
  decode: Callable,
  params: PyTree,
  attributes: Array,
  base_key: jax.Array,
  *,
  batch_size: int,
  request_ids: Sequence[int] | np.ndarray | None = None,
  progress: Progress | None = None,
  finish: Callable[[Array, jax.Array], Array] | None = None,
  finish_ids: np.ndarray | None = None,
) -> np.ndarray:
  """Returns one volume per request, (n, d, h, w, 1) float32; see `stream`."""
  batches = stream(
    sample,
    decode,
    params,
    attributes,
    base_key,
    batch_size=batch_size,
    request_ids=request_ids,
    progress=progress,
    finish=finish,
    finish_ids=finish_ids,
  )
  return np.concatenate(list(batches))


def stream(
  sample: Callable,
  decode: Callable,
  params: PyTree,
  attributes: Array,
  base_key: jax.Array,
  *,
  batch_size: int,
  request_ids: Sequence[int] | np.ndarray | None = None,
  progress: Progress | None = None,
  finish: Callable[[Array, jax.Array], Array] | None = None,
  finish_ids: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
  """Returns an iterator of volumes (b, d, h, w, 1) float32, one per request in order.

  No more than a batch is in memory. Several processes share the batches out; each needs
  a `sample` on its own devices, and gets the volumes of all.

  Every batch has `batch_size` rows, the last one padded with copies of the first
  request, so that sampler and decoder compile once. The noise of a request depends only
  on base_key and request id, not on the batch: two requests with the same id share
  their noise, as a sweep over one attribute and several volumes of a patient need.

  Args:
    sample: of `sampler_of` or `make_sampler`.
    decode: z_0 (b, ..., c) -> volumes (b, ...), usually compiled.
    params: of the denoiser.
    attributes: encoded requests (n, k), NaN for missing.
    base_key: one key for the whole list.
    batch_size: rows per call.
    request_ids: (n,) integers; None uses the row numbers.
    progress: progress(num_done, num_requests), called after every batch.
    finish: (volumes (b, ...), keys (b,)) -> volumes, such as `residual_noise.add`.
    finish_ids: (n,) integers, from which its keys follow; None uses the request ids.

  Raises:
    ValueError: no request, or attributes or ids of another shape.
  """
  attributes = np.asarray(attributes, np.float32)
  if attributes.ndim != 2:
    raise ValueError(
      f'Expected requests (n, attributes), got the shape {attributes.shape}; encode '
      'each request as one row.'
    )
  ids = np.arange(len(attributes)) if request_ids is None else np.asarray(request_ids)
  if ids.shape != attributes.shape[:1]:
    raise ValueError(
      f'Expected {len(attributes)} request ids, one per request, got the shape '
      f'{ids.shape}; pass one id for each row of the attributes.'
    )
  if not len(ids):
    raise ValueError(
      'Expected at least one request, got none; set sample.num to at least 1.'
    )

  def drawn(rows):
    ((indices, real),) = chunks(rows, batch_size)
    keys = request_keys(base_key, ids[indices])
    batch = decode(sample(params, attributes[indices], keys))
    if finish is not None:
      own = keys if finish_ids is None else request_keys(base_key, finish_ids[indices])
      batch = finish(batch, own)
    return np.asarray(batch, np.float32)[real]

  done = progress and (lambda rows: progress(rows, len(attributes)))
  return encoding.shared_batches(drawn, len(attributes), batch_size, done)
