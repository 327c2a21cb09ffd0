"""Laws of a private run's surroundings: patients, plan, key, silence."""

import dataclasses
import json
import logging
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.config import checks
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.privacy import accounting, clipping, mechanisms, secret_key
from ldm_jax.training import private_run, private_step, state
from ldm_jax.training.mesh import make_mesh


@pytest.fixture
def privacy():
  return defaults().adapt.privacy


class Draws:
  """A sampler whose draws are given."""

  def __init__(self, *draws):
    self.draw = lambda step: np.asarray(draws[step], int)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(mechanisms.Poisson):
  """A run whose draws are given."""

  draws: Draws

  def sampler(self, secret, generator):
    return self.draws


def run(step, examples, names, chunk_size, first, folder, mesh):
  """The state after all steps of a private step, with fixed keys."""
  return private_run.take_steps(
    step,
    examples,
    names,
    chunk_size,
    first,
    {},
    mesh=mesh,
    key=jax.random.key(0),
    secret_key=secret_key.new_noise_key(0),
    folder=folder,
    log=lambda **event: None,
    title='adapt',
  )


def test_4096_patients_take_the_memory_of_a_chunk_and_no_other_program(
  toy, start, params, tmp_path, monkeypatch, caplog
):
  """Batches of 4096, none, 3 and 1000 patients through one run."""
  rng, mesh, optimizer, chunk = (
    np.random.default_rng(0),
    make_mesh(2),
    optax.sgd(0.1),
    64,
  )
  patients = {
    'x': rng.normal(size=(4096, 8)).astype(np.float32),
    'y': rng.normal(size=(4096, 4)).astype(np.float32),
    'unused': np.zeros((4096, 1000), np.float32),  # 16 MB; a chunk has 256 kB
  }
  step = private_step.private_step(
    toy[0],
    optimizer,
    mesh,
    0.9,
    Given(
      num_patients=4096,
      batch_size=4096,
      steps=4,
      clip_norm=1.0,
      noise_multiplier=1.0,
      draws=Draws(range(4096), (), (7, 8, 9), range(1000)),
    ),
    microbatch=4,
  )
  first, sizes, put = start(params, optimizer, mesh), [], private_run.put_examples

  def measured(mesh, tree):
    placed = put(mesh, tree)
    sizes.append(sum(leaf.nbytes for leaf in jax.live_arrays()))
    return placed

  monkeypatch.setattr(private_run, 'put_examples', measured)
  before = sum(leaf.nbytes for leaf in jax.live_arrays())
  with caplog.at_level(logging.WARNING), jax.log_compiles():
    final = run(step, patients, range(4096), chunk, first, tmp_path, mesh)
  assert int(final.step) == 4
  assert len(sizes) == 4096 // chunk + 1 + 16  # the empty draw has no chunk
  compiled = re.findall(r'Compiling (?:jit\()?(\w+)', caplog.text)
  assert compiled.count('accumulate') == compiled.count('update') == 1
  of_chunk = chunk * sum(leaf[0].nbytes for leaf in patients.values())
  assert max(sizes) - before < 4 * of_chunk < patients['unused'].nbytes / 10


def moved_by(present, tmp_path):
  """Where one step with these patients, all drawn, takes the parameters, in units of C.

  The loss is nothing but what the patient draws, far above the clip norm.
  """

  def loss(trained, frozen, example, key):
    del frozen, example
    return 1e6 * jnp.vdot(jax.random.normal(key, (50,)), trained['w'])

  mesh, optimizer, batch = make_mesh(1), optax.sgd(6.0), 6.0
  scheme = Given(
    num_patients=len(present),
    batch_size=batch,
    steps=1,
    clip_norm=1.0,
    noise_multiplier=1.0,
    draws=Draws(range(len(present))),
  )
  final = run(
    private_step.private_step(loss, optimizer, mesh, 0.9, scheme),
    {'x': np.zeros((len(present), 1), np.float32)},
    [f'patient {number}' for number in present],
    8,
    state.create({'w': jnp.zeros(50)}, optimizer),
    tmp_path,
    mesh,
  )
  return np.asarray(final.trained['w'])


def test_a_patient_more_or_less_leaves_the_draws_of_all_others(tmp_path):
  """Also of those who stand behind in the cohort: the sum moves by one contribution."""
  crowd = range(7)
  without = [number for number in crowd if number != 2]
  moves = [moved_by(s, tmp_path / str(len(s))) for s in (crowd, without)]
  distance = np.linalg.norm(moves[0] - moves[1])
  assert distance == pytest.approx(1 - clipping.MARGIN, rel=1e-3)


def test_an_adaptive_clip_norm_follows_its_quantile_through_a_run(tmp_path):
  """Gradients of known norms: C goes from far below to the quantile, and stays."""
  rng, mesh, optimizer = np.random.default_rng(0), make_mesh(1), optax.sgd(1e-3)
  x = rng.lognormal(1.0, 0.5, (400, 1)).astype(np.float32)
  scheme = mechanisms.FullBatch(
    num_patients=400,
    steps=60,
    clip_norm=0.5,
    noise_multiplier=2.0,
    clipping='adaptive',
    quantile=0.8,
  )
  loss = lambda trained, frozen, example, key: jnp.sum(example['x'] * trained['w'])
  final = run(
    private_step.private_step(loss, optimizer, mesh, 0.9, scheme, microbatch=20),
    {'x': x},
    range(400),
    400,
    state.create({'w': jnp.zeros(1)}, optimizer),
    tmp_path,
    mesh,
  )
  low, high = np.quantile(x, (0.7, 0.88))
  assert low < float(final.clip_norm) < high


def test_the_plan_keeps_the_budget_it_was_given(privacy):
  plan = private_run.configured(privacy, 200, 50).calibrated(
    privacy.epsilon, privacy.delta
  )
  assert plan.sampling_probability == privacy.batch_size / 200
  epsilon = accounting.epsilon([plan.event()], privacy.delta)['pld']
  assert 0.99 * privacy.epsilon < epsilon <= privacy.epsilon


def test_what_was_spent_before_makes_the_noise_larger(privacy):
  plan, spent = (
    private_run.configured(privacy, 200, 50),
    [accounting.gaussian_event(1.0)],
  )
  alone = plan.calibrated(privacy.epsilon, privacy.delta)
  after = plan.calibrated(privacy.epsilon, privacy.delta, spent)
  assert after.noise_multiplier > alone.noise_multiplier
  figures = accounting.epsilon([*spent, after.event()], privacy.delta)
  assert figures['pld'] <= privacy.epsilon


def test_a_batch_larger_than_the_cohort_is_refused(privacy):
  with pytest.raises(ValueError, match=r'batch size is 32.* 31.*Lower'):
    private_run.configured(privacy, 31, 50)
  assert private_run.configured(privacy, 32, 50).sampling_probability == 1.0


@pytest.mark.parametrize(
  ('flags', 'kind', 'fields'),
  [
    ({}, 'Poisson', {'batch_size': 32}),
    ({'mechanism': 'full_batch'}, 'FullBatch', {'batch_size': 200}),
    ({'mechanism': 'banded', 'num_bands': 3}, 'Banded', {'num_bands': 3}),
    (
      {'mechanism': 'truncated_poisson', 'max_batch_size': 64},
      'TruncatedPoisson',
      {'max_batch_size': 64, 'batch_size': 32},
    ),
  ],
)
def test_the_config_chooses_the_mechanism(flags, kind, fields):
  flags = {f'adapt.privacy.{key}': value for key, value in flags.items()}
  config = checks.check(override(defaults(), flags))
  plan = private_run.configured(config.adapt.privacy, 200, 50)
  assert type(plan).__name__ == kind
  assert {key: getattr(plan, key) for key in fields} == fields


def test_a_resumed_run_takes_noise_and_strategy_from_the_ledger(privacy):
  privacy.mechanism, privacy.num_bands = 'banded', 2
  plan = private_run.configured(privacy, 200, 50)
  coefficients = (math.sqrt(0.9), math.sqrt(0.1))  # not what optimising would find
  ran = dataclasses.replace(plan, noise_multiplier=1.7, strategy=coefficients)
  recorded = json.loads(json.dumps({**ran.release('adapt'), 'run': 'r', 'id': 'i'}))
  assert private_run.as_recorded(plan, recorded) == ran
  with pytest.raises(ValueError, match='the config now asks for'):
    private_run.as_recorded(private_run.configured(privacy, 200, 51), recorded)


def test_a_new_run_writes_its_key_before_using_it(privacy, tmp_path):
  key = private_run.noise_key(tmp_path / 'adapt', privacy, resuming=False)
  path = tmp_path / 'adapt' / private_run.KEY_FILE
  assert path.stat().st_mode & 0o777 == 0o600
  data = jax.random.key_data(key)
  np.testing.assert_array_equal(jax.random.key_data(secret_key.load_key(path)), data)


def test_a_resumed_run_uses_the_key_it_began_with(privacy, tmp_path):
  first, again = (
    private_run.noise_key(tmp_path, privacy, resuming) for resuming in (False, True)
  )
  np.testing.assert_array_equal(*map(jax.random.key_data, (first, again)))
  other = private_run.noise_key(tmp_path / 'other', privacy, resuming=False)
  assert not np.array_equal(*map(jax.random.key_data, (first, other)))


def test_a_checkpoint_without_its_key_is_not_continued(privacy, tmp_path):
  with pytest.raises(ValueError, match=r'releasing a step twice.*empty workdir'):
    private_run.noise_key(tmp_path, privacy, resuming=True)


def test_a_seed_fixes_the_key(tmp_path):
  config = override(defaults(), {'adapt.privacy.seed': '3'})
  found = [
    private_run.noise_key(tmp_path / name, config.adapt.privacy, resuming=False)
    for name in ('a', 'b')
  ]
  np.testing.assert_array_equal(*map(jax.random.key_data, found))


def test_the_internal_loss_is_the_mean_over_all_patients(toy, params, patients):
  patients['present'] = np.ones((12, 1), bool)
  key = jax.random.key(0)
  state = types.SimpleNamespace(trained=params)
  found = private_run.internal_loss(toy[0], patients)(state, {}, key)
  each = [
    toy[0](
      params,
      {},
      {name: leaf[i] for name, leaf in patients.items()},
      jax.random.fold_in(key, i),
    )
    for i in range(12)
  ]
  assert float(found['loss']) == pytest.approx(float(np.mean(each)), rel=1e-5)
