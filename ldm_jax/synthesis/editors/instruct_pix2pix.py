"""Counterfactuals by a model trained on pairs of visits, without any inversion.

[Brooks23] InstructPix2Pix, arXiv 2211.09800. The result is sampled from noise, given
the source latent, the changed attributes and the years between the two ages, with two
guidance scales: one for the source, one for the request. The three network calls of a
step run as one batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.diffusion import drift, grid, guidance, process, solvers
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.synthesis.editors.setting import Setting, Time
from ldm_jax.types import Array, Config, PyTree

# Years by which rounding may make an age appear lower.
ROUNDING = 1e-2
SOURCE_GUIDANCE = 1.5  # [Brooks23]


def time_of(section: Config, schema: Schema) -> Time | None:
  """How a model trained with `config.adapt.pairs` handles time; None without pairs."""
  if not section.use:
    return None
  names = [name.lower() for name in schema.names]
  column, unit = None, 0.0
  if 'age' in names:
    column = names.index('age')
    age = schema[schema.names[column]]
    unit = (age.high - age.low) / 2  # type: ignore[operator]  # not a category
  return Time(column, unit, section.both_directions, section.change_scale)


def instruct_pix2pix(
  setting: Setting,
  *,
  source_guidance: float | None = None,
  relative: bool = False,
  num_draws: int = 1,
  solver: str = 'ddim',
  eta: float = 0.0,
) -> Callable:
  """Returns the editor `pairs`; `setting.guidance` is the scale of the request.

  Args:
    setting: with the `time` of a model trained on pairs.
    source_guidance: scale of the source; 1 follows the model, None means 1.5. A model
      of changes must have None: without a source it samples a scan, not a change.
    relative: add to the source the difference of two samples from the same noise, one
      under the request, one under the source's own attributes after no years. A null
      intervention then returns the source.
    num_draws: number of noises over which the result is averaged.
    solver, eta: see `diffusion.solvers.sample`.

  Raises:
    ValueError: a model that was not trained on pairs, a scale below 0, an invalid
      solver; when the editor is called, a request that makes someone younger, unless
      the model was trained in both directions.
  """
  time = setting.time
  if time is None:
    raise ValueError(
      "counterfactual.editor is 'pairs', but the model was not trained on pairs of "
      'scans. Set --config.adapt.pairs.use=True and adapt to a cohort with several '
      'visits a patient, or choose another editor.'
    )
  is_change = time.change_scale is not None
  if is_change and source_guidance is not None:
    raise ValueError(
      f'counterfactual.pairs.source_guidance is {source_guidance}, but a model trained '
      'with adapt.pairs.change_scale samples the change from the source, and there is '
      'no change without a source to compare with. Leave it None; '
      'counterfactual.guidance scales the request.'
    )
  if source_guidance is None and not is_change:
    source_guidance = SOURCE_GUIDANCE
  if source_guidance is not None and not source_guidance >= 0:
    raise ValueError(
      f'counterfactual.pairs.source_guidance is {source_guidance}, but must be None '
      'or a number from 0 up.'
    )
  if num_draws < 1:
    raise ValueError(
      f'counterfactual.pairs.num_draws is {num_draws}, but must be at least 1.'
    )
  schedule = setting.schedule
  solvers.check_solver(solver, eta)
  drift.check_variant(setting.drift, schedule, solver)

  def sampled(params, z, attributes, years, keep, key):
    denoise = drift.centred(
      guided(
        setting.apply_denoiser,
        params,
        attributes,
        earlier_visit.join(years, z),
        setting.guidance,
        source_guidance,
      ),
      schedule,
      setting.drift,
      setting.prediction,
    )
    eps = solvers.initial_noise(key, z.shape)
    _, s = grid.time_pairs(*setting.times)
    levels = schedule.at(jnp.asarray(s))
    kept = jnp.zeros_like(z) if is_change else z

    def hold(z_s, i):
      level_s = jax.tree.map(lambda value: value[i], levels)
      return jnp.where(keep, process.add_noise(kept, eps, level_s), z_s)

    found = solvers.sample(
      denoise,
      drift.start(eps, setting.drift),
      *setting.grid,
      key,
      solver=solver,
      eta=eta,
      after_step=drift.after_step(setting.drift, None if keep is None else hold),
      **setting.options,
    )
    return z + time.change_scale * found if is_change else found

  def edit(params, z, own, new, keep):
    requests = [(new, years_between(time, own, new))]
    if relative:
      requests.append((own, years_between(time, own, own)))
    # Loops, not batches: a sample has the same noise under both requests.
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *requests)
    draw = lambda key: jax.lax.map(
      lambda request: sampled(params, z, *request, keep, key), stacked
    )
    first = setting.noise_key
    others = [jax.random.fold_in(first, i) for i in range(1, num_draws)]
    found = jax.lax.map(draw, jnp.stack([first, *others])).mean(0)
    z_cf = z + found[0] - found[1] if relative else found[0]
    return z_cf if keep is None else jnp.where(keep, z, z_cf)

  run = setting.jitted(edit)

  def checked(params, z, attributes, new_attributes, keep=None):
    _check_direction(time, attributes, new_attributes)
    return run(params, z, attributes, new_attributes, keep)

  checked.reverses = time.backwards  # type: ignore[attr-defined]
  return checked


def guided(
  apply_denoiser: Callable,
  params: PyTree,
  attributes: Array,
  pair: jax.Array,
  scale: float,
  source_scale: float | None,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns denoise(z_t, t) -> guided output; the network's calls run as one batch.

  Args:
    apply_denoiser: (params, z_t, t, conditions, drop) -> output.
    params: of the denoiser.
    attributes: (b,k) requested.
    pair: (b,n) of `models.conditions.earlier_visit.join`.
    scale, source_scale: of the request and of the source. With a source_scale of None
      the source is never left out. Calls that the scales make unnecessary are not made.
  """
  num = len(attributes)
  full = jnp.concatenate([attributes, pair], 1)
  without = full.at[:, attributes.shape[1] :].set(jnp.nan)
  kept, dropped = jnp.zeros(num, bool), jnp.ones(num, bool)

  def plain(z_t, t):
    return apply_denoiser(params, z_t, t, full, kept).astype(z_t.dtype)

  if scale == 1 and source_scale in (1, None):
    return plain
  calls = [(without, dropped), (full, dropped), (full, kept)]
  if source_scale is None:
    calls = calls[1:]

  def combine(*outputs):
    if source_scale is None:
      source, both = outputs
      return guidance.guide(both, source, scale)
    return guidance.guide_twice(*outputs, source_scale, scale)

  conditions, drop = map(jnp.concatenate, zip(*calls, strict=True))

  def denoise(z_t, t):
    z_t, t = jnp.concatenate([z_t] * len(calls)), jnp.concatenate([t] * len(calls))
    output = apply_denoiser(params, z_t, t, conditions, drop).astype(z_t.dtype)
    return combine(*jnp.split(output, len(calls)))

  return denoise


def years_between(time: Time, own: Array, new: Array) -> jax.Array:
  """Years (b,) from the own age to the new one, NaN where either is not known."""
  if time.column is None:
    return jnp.full(len(own), jnp.nan)
  return (new[:, time.column] - own[:, time.column]) * time.unit


def _check_direction(time, own, new):
  if time.backwards or time.column is None:
    return
  years = (np.asarray(new) - np.asarray(own))[:, time.column] * time.unit
  least = np.nanmin(years, initial=0.0)
  if least < -ROUNDING:
    raise ValueError(
      f'counterfactual.set asks for a scan {-least:.3g} years younger than its source, '
      'but the model was trained on pairs from the earlier to the later visit only. '
      'Change counterfactual.set, or train it in both directions: '
      '--config.adapt.pairs.both_directions=True.'
    )
