"""What a config will cost, and what its noise will leave, before anything is trained.

Networks are only traced (`jax.eval_shape`): no weights are made. Every figure is an
estimate, and says so where it is shown. A perceptual network and an adversary of the
autoencoder are not counted.

Noise over signal. A private step releases the sum of B expected patients' gradients,
each of norm at most C, plus Gaussian noise of standard deviation sigma C in each of the
d trained parameters ([Abadi16], Algorithm 1). The noise has norm sigma C sqrt(d), the
signal at most B C, when all patients agree:

  noise / signal >= sigma sqrt(d) / B.

T steps in one direction add up their signals T times but their noises only sqrt(T)
times, so that over the whole run the ratio is that of a step over sqrt(T).

[Abadi16] Deep Learning with Differential Privacy, CCS 2016.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ldm_jax import prng
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.privacy import budget, checks
from ldm_jax.training import methods as tuning_methods
from ldm_jax.training import networks, private_run, state
from ldm_jax.types import Config, PyTree

COPIES = 5  # of each trained parameter: itself, gradient, two moments of Adam, average
EPSILONS = (1.0, 3.0, 10.0)
LARGER = 10  # times the cohort, for comparison
# Rules of thumb: as many steps as the square of the ratio average the noise away, ten
# of them or a thousand.
GOOD, USABLE = 3.0, 30.0


def plan(
  config: Config,
  schema: Schema,
  num_patients: Mapping[str, int],
  num_scans: Mapping[str, int],
  flops_per_second: float,
) -> dict[str, Any]:
  """Parameters, memory and time of the stages, and the noise of private training.

  Args:
    config: of the run.
    schema: attributes of the cohorts.
    num_patients, num_scans: dicts cohort -> number, for the cohorts that there are.
    flops_per_second: of the machine, see `machine_speed`.

  Returns:
    {'stages': [{'stage', 'parameters', 'memory_bytes', 'seconds', 'note'}], 'noise':
    [{'method', 'parameters', 'patients', 'batch_size', 'epsilon', 'noise_multiplier',
    'per_step', 'per_run', 'verdict', 'configured'}], 'delta', 'steps', 'faults':
    [text]}.
  """
  encode, denoise = _autoencoder(config), _denoiser(config, schema)
  rate, section = flops_per_second, config.diffusion
  trained = methods(denoise['shapes'], config.adapt)
  stages = [
    _training('autoencoder', config.autoencoder, encode, rate),
    _inference('encode', encode, sum(num_scans.values()) / 2, rate),
    _training('diffusion', section, denoise, rate),
  ]
  if 'private' in num_patients and config.adapt.method in trained:
    volumes = num_scans['private'] / num_patients['private']
    volumes = min(volumes, config.adapt.examples_per_patient or volumes)
    volumes += bool(tuning_methods.prior_weight(config.adapt))  # a class sample each
    moved = trained[config.adapt.method]
    stages.append(_adapting(config, denoise, moved, volumes, rate))
  sample = config.sample
  passes = sample.num * sample.steps * (1 if sample.guidance == 1 else 2)
  drawn = _inference('sample', denoise, passes, rate)
  decoding = _inference('sample', encode, sample.num / 2, rate)
  drawn['seconds'] += decoding['seconds']
  stages.append({**drawn, 'note': f'{sample.num} volumes, {sample.steps} steps'})
  noise, faults = [], []
  if 'private' in num_patients and config.adapt.privacy is not None:
    try:
      noise = noise_table(config, trained, num_patients['private'])
    except ValueError as error:
      faults.append(str(error))
  return {
    'stages': stages,
    'noise': noise,
    'delta': config.adapt.privacy.delta if noise else None,
    'steps': config.adapt.steps,
    'faults': faults,
  }


def methods(shapes: PyTree, section: Config) -> dict[str, int]:
  """Method -> number of parameters it trains.

  Args:
    shapes: nested shapes of the denoiser's parameters.
    section: config.adapt, whose options each method takes.
  """
  found = {}
  for name in tuning_methods.METHODS:
    options = ConfigDict({**section, 'method': name})
    try:
      found[name] = tuning_methods.num_trained(options, state.flatten(shapes))
    except ValueError:  # this network has nothing of that kind
      continue
  return found


def noise_table(
  config: Config, trained: Mapping[str, int], num_patients: int
) -> list[dict[str, Any]]:
  """Noise over signal of the configured budget and of others.

  A larger cohort is given with a larger batch, which leaves the sampling probability
  and so the noise multiplier as they are.

  Args:
    config: of the run.
    trained: method -> number of trained parameters.
    num_patients: of the private cohort.

  Raises:
    ValueError: the batch is larger than the cohort, delta too large, or epsilon
      impossible.
  """
  privacy, steps = config.adapt.privacy, config.adapt.steps
  checks.check_delta(privacy.delta, num_patients)
  scheme = private_run.configured(privacy, num_patients, steps)
  rows = []
  for epsilon in sorted({*EPSILONS, float(privacy.epsilon)}):
    sigma = scheme.calibrated(epsilon, privacy.delta).sigma()
    for method, size in trained.items():
      for times in (1, LARGER):
        batch = times * scheme.expected_batch
        ratio = budget.noise_to_signal(sigma, size, batch)
        rows.append(
          {
            'method': method,
            'parameters': size,
            'patients': times * num_patients,
            'batch_size': batch,
            'epsilon': epsilon,
            'noise_multiplier': sigma,
            'per_step': ratio,
            'per_run': ratio / math.sqrt(steps),
            'verdict': verdict(ratio),
            'configured': times == 1
            and method == config.adapt.method
            and epsilon == privacy.epsilon,
          }
        )
  return rows


def verdict(ratio: float) -> str:
  """What to expect of training at a ratio of noise to signal, in words."""
  if ratio <= GOOD:
    return 'should learn'
  if ratio <= USABLE:
    return 'learns slowly'
  return 'mostly noise'


def machine_speed(seconds: float = 0.3) -> float:
  """Measured floating-point operations a second of a 3D convolution, all devices."""
  x, kernel = jnp.ones((1, 8, 32, 32, 16)), jnp.ones((3, 3, 3, 16, 16))
  numbers = ('NDHWC', 'DHWIO', 'NDHWC')
  convolve = jax.jit(
    lambda x: jax.lax.conv_general_dilated(
      x, kernel, (1, 1, 1), 'SAME', dimension_numbers=numbers
    )
  )
  convolve(x).block_until_ready()
  count, start = 0, time.perf_counter()
  while time.perf_counter() - start < seconds:
    convolve(x).block_until_ready()
    count += 1
  elapsed = time.perf_counter() - start
  return count * 2 * x.size * kernel[..., 0].size / elapsed * jax.device_count()


def _autoencoder(config):
  num_labels = len(networks.label_values(config))
  module = networks.autoencoder(config.autoencoder, num_labels)
  shape = (*config.data.preprocess.shape, 1 + num_labels)
  x = _struct((1, *shape))
  key = jax.eval_shape(lambda: prng.key(0))
  shapes = jax.eval_shape(lambda k, x: module.init(k, x, k), key, x)['params']

  def forward(params, x):
    mean, spread = module.apply({'params': params}, x, method='encode')
    spread = 0 if spread is None else spread
    return module.apply({'params': params}, mean + spread, method='decode')

  return _cost(shapes, forward, [(shape, 'float32')])


def _denoiser(config, schema):
  module = networks.denoiser(config, schema)
  shapes, latent_shape = networks.denoiser_shapes(config, schema)
  text = config.diffusion.text
  width = len(schema) + (text.num_tokens * text.width if text.files else 0)
  forward = lambda params, *inputs: module.apply({'params': params}, *inputs)
  inputs = [
    (latent_shape, 'float32'),
    ((), 'int32'),
    ((width,), 'float32'),
    ((), 'bool'),
  ]
  return _cost(shapes, forward, inputs)


def _cost(shapes, forward, inputs):
  """Parameters, and per example the operations and the bytes kept for the gradient.

  Args:
    shapes: nested shapes of the parameters.
    forward: (params, *inputs) -> output.
    inputs: (shape of one example, dtype) of each input.
  """
  batch = lambda n: [_struct((n, *shape), dtype) for shape, dtype in inputs]
  total = lambda params, *x: jnp.sum(forward(params, *x))

  def kept(count):
    held = jax.eval_shape(
      lambda params, *x: jax.vjp(lambda p: total(p, *x), params)[1],
      shapes,
      *batch(count),
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))

  def operations(function):
    counted = jax.jit(function).lower(shapes, *batch(1)).cost_analysis() or {}
    return float(counted.get('flops', math.nan))

  return {
    'shapes': shapes,
    'parameters': _size(shapes),
    # What does not grow with the batch are the parameters themselves.
    'kept_bytes': max(0, kept(2) - kept(1)),
    'forward': operations(forward),
    'backward': operations(jax.grad(total)),
  }


def _training(stage, section, cost, rate):
  memory = 4 * COPIES * cost['parameters'] + section.batch_size * cost['kept_bytes']
  work = section.steps * section.batch_size * cost['backward']
  note = f'{section.steps} steps of {section.batch_size}'
  return _entry(stage, cost, memory, work / rate, note)


def _adapting(config, cost, trained, volumes, rate):
  """`adapt`; per-patient gradients of a microbatch are held beside the rest."""
  section, privacy = config.adapt, config.adapt.privacy
  batch, draws, alive = section.batch_size, 1, section.batch_size
  if privacy is not None:
    batch, draws, alive = (
      privacy.batch_size,
      privacy.noise_multiplicity,
      privacy.microbatch or privacy.chunk_size,
    )
  memory = 4 * (COPIES * trained + cost['parameters'])
  memory += alive * (draws * volumes * cost['kept_bytes'] + 4 * trained)
  work = section.steps * batch * draws * volumes * cost['backward']
  note = f'{section.steps} steps of {batch} patients, {section.method}: {trained:,}'
  return _entry('adapt', cost, memory, work / rate, f'{note} trained')


def _inference(stage, cost, examples, rate):
  memory = 4 * cost['parameters'] + cost['kept_bytes']
  return _entry(stage, cost, memory, examples * cost['forward'] / rate, '')


def _entry(stage, cost, memory, seconds, note):
  return {
    'stage': stage,
    'parameters': cost['parameters'],
    'memory_bytes': int(memory),
    'seconds': float(seconds) if math.isfinite(seconds) else None,
    'note': note,
  }


def _size(shapes):
  return int(sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes)))


def _struct(shape, dtype='float32'):
  return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
