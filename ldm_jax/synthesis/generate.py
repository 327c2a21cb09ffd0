"""Requested attributes -> latents -> volumes: (n, k) -> (n, d, h, w, 1).

`apply_denoiser(params, z_t, t, attributes, drop) -> output` is any conditional
denoiser: z_t (b, ..., c) normalised latents, t (b,) int, attributes (b, k) float32
with NaN for missing, drop (b,) bool, true where the condition is withheld. Latents
are normalised as (z - mean) / std, mean and std scalars or (c,).
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.data.batching import chunks
from ldm_jax.diffusion import drift as drifts
from ldm_jax.diffusion import grid, process, solvers
from ldm_jax.diffusion import guidance as guiding
from ldm_jax.training import encoding
from ldm_jax.training.mesh import EXAMPLES


def make_sampler(
  apply_denoiser: Callable,
  schedule,
  latent_shape: tuple[int, ...],
  *,
  num_steps: int,
  solver: str = 'ddim',
  eta: float = 0.0,
  prediction: str = 'epsilon',
  spacing: str = 'linspace',
  guidance: float = 1.0,
  drift=None,
  latent_mean=0.0,
  latent_std=1.0,
  clip_z_0: float | None = None,
  mesh=None,
) -> Callable:
  """Returns jitted sample(params, attributes (b, k), keys (b,)) -> z_0 (b, ..., c).

  One `lax.scan` per run and one compilation per batch size. A row depends on its own
  attributes and key alone, whatever device it is made on. Guidance other than 1 doubles
  the batch inside the scan. The initial noise is drawn inside and its buffer becomes
  the scan's, so there is no argument to donate.

  Args:
    apply_denoiser: see the module.
    schedule: `diffusion.schedules.Schedule` the denoiser was trained with.
    latent_shape: (..., c) of one latent.
    num_steps: denoiser calls per sample.
    solver, eta, prediction, spacing, clip_z_0: see `diffusion.solvers.sample`.
    guidance: 0 unconditional, 1 conditional, above 1 stronger condition.
    drift: `diffusion.drift.Drift` of the noise, or its value: a scalar or (c,).
    latent_mean, latent_std: statistics that z_0 is multiplied back with.
    mesh: of `training.mesh`; its devices share the rows, see `by_rows`.

  Raises:
    ValueError: a drift that does not fit the channels; what `sample` refuses.
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


def by_rows(function, mesh=None, num_shared=0) -> Callable:
  """Compiles function(*shared, *rows) -> rows so that each device makes its own rows.

  Rows are arrays (b, ...), shared arguments (parameters) are whole on every device, and
  the devices do not talk. A batch that does not divide is filled up with copies of its
  last row, which are dropped again.

  Args:
    function: whose rows do not depend on each other.
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
    # Parameters read from a checkpoint lie on one device only.
    made = run(jax.device_put(shared, everywhere), jax.device_put(rows, by_example))
    return made[:count]

  return split


def conditional(apply_denoiser, params, attributes, guidance=1.0, against=None):
  """Binds params and attributes (b, k): returns denoise(z_t, t) -> float32 output.

  Guidance pushes away from `against` (b, k), or from no condition when it is None;
  both halves run as one batch. A guidance of 1 leaves only the condition.
  """
  num_examples = attributes.shape[0]
  keep = jnp.zeros(num_examples, bool)

  def plain(z_t, t):
    return apply_denoiser(params, z_t, t, attributes, keep).astype(z_t.dtype)

  if guidance == 1:
    return plain
  second = attributes if against is None else against
  drop = jnp.concatenate([keep, keep if against is not None else ~keep])
  both = jnp.concatenate([attributes, second])

  def guided(z_t, t):
    z_t, t = jnp.concatenate([z_t, z_t]), jnp.concatenate([t, t])
    output = apply_denoiser(params, z_t, t, both, drop).astype(z_t.dtype)
    return guiding.guide(output[:num_examples], output[num_examples:], guidance)

  return guided


def request_keys(base_key, request_ids) -> jax.Array:
  """Returns one key per request, fold_in(base_key, id), ids in [0, 2^32).

  Raises:
    ValueError: an id that is no such integer.
  """
  ids = np.asarray(request_ids)
  if ids.size and not (np.issubdtype(ids.dtype, np.integer) and ids.min() >= 0):
    raise ValueError(
      f'Request ids {request_ids!r} came; required are integers from 0 to 2^32 - 1, '
      'the number of each request in the list.'
    )
  if ids.size and ids.max() >= 2**32:
    raise ValueError(f'Request id {ids.max()} is not below 2^32; number from 0.')
  if not jnp.issubdtype(base_key.dtype, jax.dtypes.prng_key):
    base_key = jax.random.wrap_key_data(base_key)
  ids = jnp.asarray(ids.astype(np.uint32))
  return jax.vmap(lambda i: jax.random.fold_in(base_key, i))(ids)


def stream(
  sample: Callable,
  decode: Callable,
  params,
  attributes: np.ndarray,
  base_key,
  *,
  batch_size: int,
  request_ids=None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields (indices (m,), volumes (m, ...) float32) batch after batch.

  Every batch has `batch_size` rows, the last one padded with copies of the first
  request, so that sampler and decoder compile once. The same base_key and request id
  give the same noise whatever the batch; two requests with one id share their noise,
  which is what a conditioning sweep wants.

  Args:
    sample: what `make_sampler` returned.
    decode: z_0 (b, ..., c) -> volumes (b, ...), usually jitted.
    params: of the denoiser.
    attributes: encoded requests (n, k), NaN for missing.
    base_key: one key for the whole list.
    batch_size: rows per call.
    request_ids: (n,) integers; the row numbers when None.
  """
  attributes = np.asarray(attributes, np.float32)
  if attributes.ndim != 2:
    raise ValueError(
      f'Requests of shape {attributes.shape} came; required is (n, attributes).'
    )
  ids = np.arange(len(attributes)) if request_ids is None else np.asarray(request_ids)
  if ids.shape != attributes.shape[:1]:
    raise ValueError(f'{ids.shape} request ids came for {len(attributes)} requests.')
  for indices, real in chunks(np.arange(len(attributes)), batch_size):
    keys = request_keys(base_key, ids[indices])
    volumes = decode(sample(params, attributes[indices], keys))
    yield indices[real], np.asarray(volumes, np.float32)[real]


def generate(
  sample: Callable,
  decode: Callable,
  params,
  attributes: np.ndarray,
  base_key,
  *,
  batch_size: int,
  request_ids=None,
  progress: Callable | None = None,
) -> np.ndarray:
  """Returns one volume per request, (n, d, h, w, 1) float32; see `stream`.

  `progress(num_done, num_requests)` is called after every batch.
  """
  volumes = []
  for indices, batch in stream(
    sample,
    decode,
    params,
    attributes,
    base_key,
    batch_size=batch_size,
    request_ids=request_ids,
  ):
    volumes.append(batch)
    if progress is not None:
      progress(int(indices[-1]) + 1, len(attributes))
  if not volumes:
    raise ValueError('No requests came; set sample.num to at least 1.')
  return np.concatenate(volumes)
