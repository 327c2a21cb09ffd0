"""Requests of the page -> volumes, by samplers that are compiled once and kept.

Guidance and drift are arguments of the compiled samplers, so that a slider changes them
without compiling again; a number of steps is a program of its own. `quick` is a solver
of high order with few steps, which shows within a second what the full one refines.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax.diffusion import drift as drifts
from ldm_jax.sharing import asking
from ldm_jax.sharing.shared_model import SharedModel
from ldm_jax.synthesis import generate, write_samples

QUICK_STEPS = 6
# Of the second order with one call per step; the second where a drift excludes it.
QUICK_SOLVERS = ('unipc', 'dpmpp_2m')
STEPS = (8, 15, 25, 50, 100, 250)  # that the page offers, beside the model's own
GUIDANCE = (0.0, 8.0)
DRIFT = (0.0, 3.0)  # times the drift that the model was fine-tuned with
SHIFT = (-0.3, 0.3)  # the drift itself, of a model that was trained without
MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a volume is drawn.

  Attributes:
    steps: of the solver; None for the quick one.
    guidance: 0 is unconditional, 1 conditional, above 1 obeys the request more.
    drift: factor of the drift that the model has; of a model without, the drift.
    seed: of the noise.
  """

  steps: int | None
  guidance: float
  drift: float
  seed: int


def settings(model: SharedModel, plain: Mapping[str, Any]) -> Settings:
  """Settings of a request, JSON-able; what it lacks is as the model has it.

  Raises:
    ValueError: a number outside what the page offers.
  """
  own, drift = model.config.sample, drift_control(model)
  steps = None
  if not plain.get('quick'):
    steps = int(_number(plain, 'steps', own.steps, (1, max(steps_of(model))), True))
    if steps not in steps_of(model):
      offered = ', '.join(map(str, steps_of(model)))
      raise ValueError(f'steps is {steps}, expected one of {offered}.')
  return Settings(
    steps=steps,
    guidance=_number(plain, 'guidance', own.guidance, GUIDANCE),
    drift=_number(plain, 'drift', drift['default'], drift['limits']),
    seed=int(_number(plain, 'seed', 0, (0, MAX_SEED), True)),
  )


def drift_control(model: SharedModel) -> dict[str, Any]:
  """What the page's slider of the drift is, JSON-able.

  Returns:
    {'value': the model's drift or None, 'limits', 'default'} of the factor that it is
    multiplied by; where there is none, of a drift of sampling alone.
  """
  if model.system.drift is None:
    return {'value': None, 'limits': SHIFT, 'default': 0.0}
  value = np.asarray(model.system.drift.value, float).tolist()
  return {'value': value, 'limits': DRIFT, 'default': 1.0}


def steps_of(model: SharedModel) -> list[int]:
  """Numbers of steps that the page offers."""
  most = model.config.diffusion.schedule.num_timesteps
  return sorted({model.config.sample.steps, *(n for n in STEPS if n <= most)})


class Samplers:
  """The compiled samplers of a model; threads may use them at the same time.

  Attributes:
    model: what is drawn from.
  """

  def __init__(self, model: SharedModel):
    self.model = model
    self._kept: dict[Any, Any] = {}
    self._locks: dict[Any, threading.Lock] = collections.defaultdict(threading.Lock)

  def draw(self, values: Mapping[str, Any], chosen: Settings) -> np.ndarray:
    """One volume (d,h,w) float32 in [0,1].

    Args:
      values: attribute -> value; attributes that are not named are unknown.
      chosen: how.

    Raises:
      ValueError: an attribute or value that the model does not know.
    """
    model = self.model
    vector = asking.encode(model.schema, 1, values, rest='unknown')
    sample, (decode, finish) = self.compiled(chosen), self._decoder()
    guidance, drift = np.float32(chosen.guidance), np.float32(chosen.drift)
    return generate.generate(
      lambda params, attributes, keys: sample(
        params, attributes, keys, guidance, drift
      ),
      decode,
      model.system.params,
      vector,
      model.key('sample', chosen.seed),
      batch_size=1,
      finish=finish,
    )[0, ..., 0]

  def compiled(self, chosen: Settings) -> Callable:
    """The sampler of some settings; who asks first waits until it is compiled."""
    # Without guidance a step is one call of the network instead of two.
    is_guided = self.model.config.sample.guidance != 1 or chosen.guidance != 1
    key = (chosen.steps, is_guided)
    return self._once(key, lambda: _sampler(self.model, *key))

  def to_compile(self) -> list[Settings]:
    """Settings whose samplers the page needs, the first ones first."""
    own = self.model.config.sample.guidance
    scales = (own,) if own != 1 else (1.0, 2.0)
    return [
      settings(self.model, {'quick': quick, 'guidance': float(scale)})
      for scale in scales
      for quick in (True, False)
    ]

  def _decoder(self):
    model = self.model
    return self._once(
      'decode', lambda: write_samples.compiled(model.config, model.system)[1:]
    )

  def _once(self, key: Any, make: Callable[[], Any]) -> Any:
    with self._locks[key]:
      if key not in self._kept:
        self._kept[key] = make()
      return self._kept[key]


def _sampler(model: SharedModel, steps: int | None, is_guided: bool) -> Callable:
  """Compiled (params, attributes (1,k), keys (1,), guidance, drift) -> latents."""
  system, own = model.system, model.config.sample
  if steps is None:
    most = model.config.diffusion.schedule.num_timesteps
    options = {'num_steps': min(QUICK_STEPS, most), 'solver': _quick_solver(system)}
  else:
    options = {'num_steps': steps, 'solver': own.solver, 'eta': own.eta}

  def sample(params, attributes, keys, guidance, factor):
    own_drift = system.drift or drifts.Drift(1.0)
    drift = dataclasses.replace(own_drift, value=factor * np.asarray(own_drift.value))
    return generate.make_sampler(
      system.apply_denoiser,
      system.schedule,
      system.latent_shape,
      prediction=system.prediction,
      spacing=own.spacing,
      guidance=guidance if is_guided else 1.0,
      drift=drift,
      **options,
      **system.statistics,
    )(params, attributes, keys)

  attributes, one = np.zeros((1, len(model.schema)), np.float32), np.float32(1)
  keys = generate.request_keys(model.key('sample', 0), np.zeros(1, int))
  return jax.jit(sample).lower(system.params, attributes, keys, one, one).compile()


def _quick_solver(system):
  for solver in QUICK_SOLVERS:
    try:
      drifts.check_variant(system.drift, system.schedule, solver)
    except ValueError:
      continue
    return solver
  return 'ddim'


def _number(plain, name, default, limits, whole=False):
  value = plain.get(name, default)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or not math.isfinite(value) or (whole and value != int(value)):
    kind = 'a whole number' if whole else 'a number'
    raise ValueError(f'{name} is {value!r}, expected {kind}.')
  if not limits[0] <= value <= limits[1]:
    raise ValueError(f'{name} is {value:g}, expected {limits[0]:g} to {limits[1]:g}.')
  return value
