"""A private fine-tuning run: plan, record, train, destroy the key.

The release is recorded in the ledger before the first step, so a run that is killed has
spent at most what is recorded. The noise key is stored in one file beside the
checkpoints (mode 600) from the first step to the last.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ldm_jax import prng, processes, replace_results
from ldm_jax.data import batching
from ldm_jax.privacy import mechanisms
from ldm_jax.privacy import secret_key as secret_keys
from ldm_jax.training import loop
from ldm_jax.training import private_step as private_steps
from ldm_jax.training.mesh import put_examples
from ldm_jax.training.patients import numbers
from ldm_jax.training.state import TrainState
from ldm_jax.types import Config, PyTree

(KEY_FILE,) = replace_results.SECRETS


def noise_key(folder: pathlib.Path, privacy: Config, resuming: bool) -> jax.Array:
  """The secret key of the run: read from its file if it resumes, else made and saved.

  Of several processes the first one calls it, and `told_key` sends it to the others.

  Raises:
    ValueError: the run has begun, but its key is missing.
  """
  path = folder / KEY_FILE
  if resuming and path.exists():
    return secret_keys.load_key(path)
  if resuming:
    raise ValueError(
      f'a private run has begun in {folder}, but its noise key ({KEY_FILE}) is gone: '
      'it cannot go on without releasing a step twice. Start again in an empty '
      'workdir; the ledger keeps what was spent.'
    )
  # A key of a run that was killed before anything was recorded has made no noise. It
  # may come from a seed that the config no longer has, so it is not used.
  secret_keys.destroy_key(path)
  key = secret_keys.new_noise_key(privacy.seed, privacy.generator)
  folder.mkdir(parents=True, exist_ok=True)
  secret_keys.save_key(path, key)
  return key


def told_key(key: jax.Array | None, generator: str) -> jax.Array:
  """The first process's secret key, in all of them.

  With different keys they would draw different patients and add different noise to the
  sum that they compute together.

  Args:
    key: None in the other processes.
    generator: of the key.
  """
  # The others need an array of the same shape to receive it.
  key = secret_keys.new_noise_key(0, generator) if key is None else key
  if processes.count() == 1:
    return key
  words = jax.random.key_data(key)
  return prng.wrap(multihost_utils.broadcast_one_to_all(words))


def configured(privacy: Config, num_patients: int, steps: int) -> mechanisms.Poisson:
  """The run that config.adapt.privacy describes, with the noise not yet calibrated.

  Args:
    privacy: config.adapt.privacy.
    num_patients: patients of the private cohort, a public number.
    steps: config.adapt.steps.

  Raises:
    ValueError: numbers that do not fit the cohort or each other.
  """
  scheme = mechanisms.MECHANISMS[privacy.mechanism]
  names = {field.name for field in dataclasses.fields(scheme)} & {*privacy}
  if scheme is mechanisms.FullBatch:
    names.remove('batch_size')  # it is num_patients
  settings = {name: privacy[name] for name in names}
  return scheme(num_patients=num_patients, steps=steps, **settings)


def as_recorded(
  scheme: mechanisms.Poisson, release: Mapping[str, Any]
) -> mechanisms.Poisson:
  """The scheme with the noise multiplier and strategy of its release in the ledger.

  Raises:
    ValueError: scheme and release describe different runs.
  """
  fields = {'noise_multiplier': release['noise_multiplier']}
  if release.get('strategy'):
    fields['strategy'] = tuple(release['strategy'])
  result = dataclasses.replace(scheme, **fields)
  mine = result.release(release['name'])
  if any(release.get(key) != value for key, value in mine.items()):
    raise ValueError(
      f'the ledger records this run as {release}, but the config now asks for {mine}. '
      'Restore the config, or start in another --workdir, which is a new release and '
      'adds to the total.'
    )
  return result


def take_steps(
  private_step: private_steps.PrivateStep,
  examples: Mapping[str, np.ndarray],
  names: Sequence[str],
  chunk_size: int,
  state: TrainState,
  frozen: PyTree,
  *,
  mesh: Mesh,
  key: jax.Array,
  secret_key: jax.Array,
  observe: Callable[..., dict] | None = None,
  **run: Any,
) -> TrainState:
  """Takes all steps of a private run; nothing about the private data is logged.

  Which patients are drawn, how often and with what noise follows from
  `private_step.scheme` alone.

  Args:
    private_step: from `private_step.private_step`.
    examples: from `patient_arrays`.
    names: (p,) identifiers of the patients, the seeds of their random draws.
    chunk_size: patients per compiled call.
    state: TrainState at step 0.
    frozen: flat dict of the parameters that are not trained.
    mesh: devices.
    key: PRNG key of times, training noise and drops (not secret).
    secret_key: of `noise_key`: of the privacy noise and of the sampling.
    observe: None, or (state, frozen, key) -> figures of the private data to log, which
      the caller marks as internal.
    **run: arguments of `loop.train`, except the number of steps.

  Returns:
    The final TrainState.

  Raises:
    ValueError: the number of patients differs from that of the scheme.
  """
  scheme = private_step.scheme
  found = len(next(iter(examples.values())))
  if found != scheme.num_patients or found != len(names):
    raise ValueError(
      f'expected the {scheme.num_patients} patients of the release in the ledger, got '
      f'{found} patients with {len(names)} names; prepare the cohort again and start '
      'in a new --workdir.'
    )
  sampler = scheme.sampler(
    secret_keys.sampling_secret(secret_key), secret_keys.generator_of(secret_key)
  )
  of_noise = secret_keys.device_key(secret_key)
  own = numbers(names)

  def take_step(current, step):
    chunks = _chunks(examples, own, sampler.draw(step), chunk_size, mesh)
    current = private_step(current, frozen, chunks, key, of_noise)
    is_observed = observe is not None and (step + 1) % run['log_every'] == 0
    return current, observe(current, frozen, key) if is_observed else {}

  state = private_steps.begin(state, scheme)
  return loop.train(take_step, state, scheme.steps, mesh=mesh, **run)


def _chunks(examples, own, drawn, chunk_size, mesh):
  for patients, mask in batching.chunks(drawn, chunk_size):
    chosen = {name: leaf[patients] for name, leaf in examples.items()}
    yield put_examples(mesh, (chosen, mask, own[patients]))


def internal_loss(
  loss: Callable[..., jax.Array], examples: Mapping[str, np.ndarray]
) -> Callable[..., dict[str, jax.Array]]:
  """Builds the observer of a private run with `log_internal`.

  Its figure is computed from private data without noise, and is covered by no budget:
  it is for those who may see the scans.

  Args:
    loss: (trained, frozen, example, key) -> () of one patient.
    examples: from `patient_arrays`.

  Returns:
    (state, frozen, key) -> {'loss': mean over all patients}.
  """
  one = jax.jit(loss)

  def observe(state, frozen, key):
    total, key = 0.0, prng.threefry(key)
    for patient in range(len(examples['present'])):
      example = {name: leaf[patient] for name, leaf in examples.items()}
      total += one(state.trained, frozen, example, jax.random.fold_in(key, patient))
    return {'loss': total / len(examples['present'])}

  return observe
