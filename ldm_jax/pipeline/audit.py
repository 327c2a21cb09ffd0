"""The pseudo-stage `audit`: attacks the private step of a config, without private data.

Public patients stand in for the private cohort, so nothing private is touched and no
budget is spent. The step is the one that `adapt` has taken or would take: same network,
trained parameters, loss, method of gradients, clip norm, microbatch and devices, and
the noise multiplier of the ledger or what the ledger leaves. Four attacks, see
`privacy.canaries`:

- gradient canaries, by a bound that assumes nothing and by one that assumes Gaussian
  noise; both against the epsilon of as many steps at full participation;
- loss canaries: fair coins decide who trains, the losses are to tell them apart;
- influence: the step with and without a patient under one noise, at most clip norm;
  arrays without the patient of most volumes are smaller, as they would be in training;
- noise: its deviation, measured on coordinates that nobody pushes.

With banded noise the patients take turns as they do in training, and the attacker takes
the correlation out first; an adaptive clip norm is the unit of each step. What passes
may still fail where it was not attacked.
"""

import contextlib
import dataclasses
import math
from typing import Any

import jax
import numpy as np
import optax

from ldm_jax.data import batching
from ldm_jax.pipeline import (
  fine_tune,
  private_budget,
  private_ledger,
  private_releases,
  starting_point,
)
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import (
  accounting,
  canaries,
  clipping,
  epsilon_lower_bounds,
  mechanisms,
  noise,
  privacy_json,
  secret_key,
)
from ldm_jax.training import (
  drift_setting,
  methods,
  private_run,
  private_step,
  state,
)
from ldm_jax.training.mesh import put_examples, put_state
from ldm_jax.workfolder import WorkFolder

NUM_PROBED = 4  # patients taken out in turn: of most volumes, repeated by padding
SPARE = 4096  # coordinates that nobody pushes: they cost nothing and show the noise


def attack(run: Run) -> dict[str, Any]:
  """Audits the private step of a config; writes and returns audit.json.

  Args:
    run: its stages up to `diffusion` have finished.

  Raises:
    ValueError: no privacy to audit, or no public cohort to stand in.
    RuntimeError: a bound exceeds its claim, or a patient the clip norm: the step is
      broken. audit.json is written nevertheless.
  """
  config, section, privacy = run.config, run.config.audit, run.config.adapt.privacy
  split = run.splits.get('public')
  if privacy is None or split is None:
    raise ValueError(
      'audit needs a private step and public patients to try it on; adapt.privacy is '
      f'{"None" if privacy is None else "set"} and data.public is '
      f'{"empty" if split is None else "there"}. Set both.'
    )
  times = section.participations
  scheme = planned(run)
  bands = getattr(scheme, 'num_bands', 1)
  num_steps = 2 * times * bands
  # The same noise in a run that is long enough: the noise multiplier stays.
  steps = max(scheme.steps, num_steps)
  stand = _Stand(run, split, dataclasses.replace(scheme, steps=steps))
  inside = canaries.coins(split.num_patients, config.seed)
  included = canaries.coins(section.num_canaries, config.seed, 1)
  secret = secret_key.new_noise_key(privacy.seed)
  final, updates = stand.train(inside, included, num_steps, bands, secret)
  each = 1 - (1 - section.confidence) / 2  # two kinds of bounds share the error
  strategy = getattr(scheme, 'strategy', canaries.INDEPENDENT)
  found = {
    'claim': {
      **scheme.release('the run under audit'),
      'epsilon': accounting.claim(accounting.epsilon([scheme.event()], privacy.delta)),
      'delta': privacy.delta,
    },
    'confidence': section.confidence,
    'gradient_canaries': canaries.report(
      updates,
      included,
      scheme.sigma(),
      privacy.delta,
      each,
      strategy,
      steps,
    ),
    'loss_canaries': stand.compare_losses(final, inside, 2 * times, each),
    'influence': stand.influence(secret),
  }
  return conclude(found, run.work)


def conclude(found: dict[str, Any], work: WorkFolder) -> dict[str, Any]:
  """Writes and prints the findings and whether the claim holds.

  Raises:
    RuntimeError: it does not.
  """
  found = {**found, 'holds': holds(found)}
  work.write_json(_finite(found), 'audit.json')
  print(text(found))
  if not found['holds']:
    raise RuntimeError(
      f'the private step does not keep its claim; see {work.root / "audit.json"}. '
      'Do not release anything that it trained.'
    )
  return found


def planned(run: Run) -> mechanisms.Poisson:
  """The scheme of `adapt`: as recorded, or as a new run would be calibrated now.

  A new run gets what the ledger leaves. The size of the private cohort is public;
  without one, the public cohort's counts, and nothing has been spent.

  Raises:
    ValueError: the config asks for a new run, for which the ledger leaves nothing.
  """
  section, privacy = run.config.adapt, run.config.adapt.privacy
  cohort = run.splits.get('private')
  if cohort is None:
    num_patients = run.splits['public'].num_patients
    scheme = private_run.configured(privacy, num_patients, section.steps)
    return scheme.calibrated(privacy.epsilon, privacy.delta).prepared()
  begun = run.work.read_json('checkpoints', 'adapt', 'started.json')
  release = begun and private_ledger.release_of(run.ledger, run.name)
  if release and release['noise_multiplier']:
    scheme = private_run.configured(privacy, cohort.num_patients, section.steps)
    with contextlib.suppress(ValueError):  # another config: it would be a new run
      return private_run.as_recorded(scheme, release)
  beside = private_releases.planned(run, None)
  return private_budget.calibrated(run, beside).prepared()


def holds(found: dict[str, Any]) -> bool:
  """Whether nothing in the findings contradicts the claim."""
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  return bool(
    gradient['epsilon_low'] <= gradient['epsilon_claimed']
    and loss['epsilon_low'] <= loss['epsilon_claimed']
    and found['influence']['largest'] <= found['influence']['limit']
    and gradient['noise']['high'] >= found['claim']['noise_multiplier']
  )


def text(found: dict[str, Any]) -> str:
  """The findings in a few lines for people."""
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  deviation = gradient['noise']
  return '\n'.join(
    [
      f'audit: noise multiplier {found["claim"]["noise_multiplier"]:.4g}; measured '
      f'{deviation["value"]:.4g} ({deviation["low"]:.4g} to {deviation["high"]:.4g})',
      f'  gradient canaries  epsilon >= {gradient["epsilon_low"]:.3g} where '
      f'{gradient["epsilon_claimed"]:.3g} is claimed ({gradient["participations"]} '
      f'steps, everybody drawn); without assuming Gaussian noise >= '
      f'{gradient["one_run"]:.3g}',
      f'  loss canaries      epsilon >= {loss["epsilon_low"]:.3g} where '
      f'{loss["epsilon_claimed"]:.3g} is claimed ({loss["participations"]} steps, '
      f'{loss["patients"]} public patients)',
      f'  influence          at most {found["influence"]["largest"]:.4f} clip norms '
      f'({found["influence"]["patients"]} patients taken out)',
      f'  {"holds" if found["holds"] else "BROKEN"} (confidence '
      f'{found["confidence"]:g})',
    ]
  )


class _Stand:
  """The step under audit, and the public patients and canaries that it is tried on."""

  def __init__(self, run, split, scheme):
    config, self.mesh = run.config, run.mesh
    self.config, self.num_patients = config, split.num_patients
    self.privacy, self.key = config.adapt.privacy, run.key('audit')
    latents = run.latents(split)
    latent_shape = latents.shape[1:]
    # The drift of the config where none has been searched for yet.
    drift = drift_setting.in_training(config, run.work, searched=False)
    losses, params = starting_point.losses_and_params(run, latent_shape, drift)
    trained, frozen = starting_point.parameters(run, params)
    idle = starting_point.idle(
      run, split, latent_shape, trained, frozen, searched=False
    )
    trained, frozen = starting_point.without(idle, trained, frozen)
    self.trained = trained | starting_point.pair_parameters(run, latent_shape)
    samples = starting_point.class_samples(run, params)
    self.frozen = put_state(self.mesh, {**frozen, **samples})
    draws = self.privacy.noise_multiplicity
    self.loss = methods.patient_loss(config.adapt, losses, draws)
    patients = fine_tune.patient_examples(run, split, latents)
    self.examples = canaries.appended(patients, config.audit.num_canaries)
    self.scheme, self.sigma = scheme, scheme.noise_multiplier
    # A step of this rate moves a coordinate by its private sum in units of C.
    self.plain = optax.sgd(scheme.expected_batch / scheme.clip_norm)

  def step(self, optimizer, loss=None):
    return private_step.private_step(
      loss or canaries.with_canaries(self.loss, self.scheme.clip_norm),
      optimizer,
      self.mesh,
      self.config.adapt.ema_decay,
      self.scheme,
      microbatch=self.privacy.microbatch,
      method=self.privacy.gradients,
    )

  def start(self, optimizer, trained=None):
    """State at step 0, on the host: a step donates the copy that it is given."""
    trained = trained or self.marked('constant')
    begun = private_step.begin(
      state.create(trained, optimizer, self.config.adapt.ema_decay), self.scheme
    )
    return jax.tree.map(np.asarray, begun)

  def marked(self, rule):
    num = self.config.audit.num_canaries + SPARE
    return canaries.with_marks(self.trained, num, rule)

  def chunks(self, drawn, examples=None):
    examples = self.examples if examples is None else examples
    for chosen, mask in batching.chunks(drawn, self.privacy.chunk_size):
      rows = {name: leaf[chosen] for name, leaf in examples.items()}
      yield put_examples(self.mesh, (rows, mask, chosen.astype(np.int32)))

  def train(self, inside, included, num_steps, bands, secret):
    """Trains on the patients inside; canaries that take part join every other turn.

    As in training with this many bands, each patient has a group, and step t draws from
    group t mod bands; here all of it. The canaries are in the first group.
    """
    optimizer = state.by_prefix(
      optax.adam(self.config.adapt.learning_rate), {canaries.LEAF: self.plain}
    )
    loss = canaries.with_canaries(self.loss, self.scheme.clip_norm)
    trained, whole = self.marked(self.scheme.clipping), lambda trained: trained
    if self.scheme.clipping == 'per_layer':
      shapes = {path: leaf.shape for path, leaf in self.trained.items()}
      whole = lambda trained: canaries.apart(trained, shapes)
      of_parts = loss
      loss = lambda trained, *more: of_parts(whole(trained), *more)
      optimizer = canaries.of_vectors(optimizer, shapes)
      trained = canaries.together(trained)
    step, patients = self.step(optimizer, loss), np.flatnonzero(inside)
    joining = self.num_patients + np.flatnonzero(included)

    def take_step(current, number):
      turn, group = divmod(number, bands)
      drawn = patients[patients % bands == group]
      if turn % 2 == 0 and group == 0:
        drawn = np.append(drawn, joining)
      return step(current, self.frozen, self.chunks(drawn), self.key, secret)

    start = put_state(self.mesh, self.start(optimizer, trained))
    read = lambda trained: canaries.read(whole(trained))
    final, updates = canaries.trace(take_step, start, num_steps, read)
    return {path: whole(final.trained)[path] for path in self.trained}, updates

  def compare_losses(self, final, inside, times, confidence):
    """Bound from losses before less after, of patients inside and outside."""
    one = jax.jit(self.loss)
    # From the host: parameters before and after rest on different sets of devices.
    before, after = jax.device_get((self.trained, final))
    frozen = jax.device_get(self.frozen)
    scores = np.array(
      [
        float(one(before, frozen, *seen)) - float(one(after, frozen, *seen))
        for seen in map(self._seen, range(self.num_patients))
      ]
    )
    delta = self.privacy.delta
    claimed = accounting.epsilon([accounting.gaussian_event(self.sigma, times)], delta)
    found = {
      'epsilon_claimed': accounting.claim(claimed),
      'epsilon_low': epsilon_lower_bounds.epsilon_from_coins(
        scores, inside, delta, confidence
      ),
      'participations': times,
      'patients': self.num_patients,
    }
    if 2 <= inside.sum() <= inside.size - 2:
      auc = epsilon_lower_bounds.membership_auc(
        scores[inside], scores[~inside], confidence
      )
      found['membership'] = auc
    return found

  def _seen(self, patient):
    example = {name: leaf[patient] for name, leaf in self.examples.items()}
    del example[canaries.LEAF]
    return example, jax.random.fold_in(self.key, patient)

  def of_cohort(self, patients):
    """The examples with as many volumes as the largest of these patients has."""
    most = max(int(self.examples['present'][patients].sum(axis=1).max()), 1)
    return {
      name: leaf if name == canaries.LEAF else leaf[:, :most]
      for name, leaf in self.examples.items()
    }

  def influence(self, secret):
    """Largest move of the step by one patient, in clip norms, under equal noise.

    The probed patients are a cohort of their own: without the one who has most volumes,
    all arrays are smaller, on which no other patient's draws may depend.

    Of an adaptive clip norm the parameters have what the bit, which is of one size for
    every patient, leaves.
    """
    step, start = self.step(self.plain), self.start(self.plain)
    volumes = self.examples['present'][: self.num_patients].sum(axis=1)
    # Padding repeats row 0; a canary's gradient is the largest there is.
    probed = [0, *np.argsort(-volumes)[: NUM_PROBED - 2], self.num_patients]
    probed = sorted({int(patient) for patient in probed})

    def moved(drawn):
      current = put_state(self.mesh, jax.tree.map(np.copy, start))
      chosen = self.chunks(np.asarray(drawn), self.of_cohort(drawn))
      final = step(current, self.frozen, chosen, self.key, secret)
      return jax.tree.map(np.asarray, final.trained)

    everyone, largest = moved(probed), 0.0
    for patient in probed:
      without = moved([other for other in probed if other != patient])
      parts = jax.tree.map(lambda a, b: float(np.sum((a - b) ** 2)), everyone, without)
      largest = max(largest, float(np.sqrt(sum(parts.values()))))
    size = sum(leaf.size for leaf in everyone.values())
    # The noise is subtracted in float32: what is lost grows with its norm.
    limit = 1 + max(1e-3, 1e-6 * self.sigma * float(np.sqrt(size)))
    # Both sums are rounded after the noise: mean square at most (cell)^2 / 4 a number.
    limit = math.hypot(limit, noise.GRID * self.sigma * math.sqrt(size) / 2)
    if self.scheme.clipping == 'adaptive':
      limit *= math.sqrt(1 - clipping.BIT_SHARE**2)
    return {'largest': largest, 'limit': limit, 'patients': len(probed)}


def _finite(found):
  """Nested figures with 'inf' as text, which strict JSON can hold."""
  if isinstance(found, dict):
    return {name: _finite(value) for name, value in found.items()}
  return privacy_json.finite(found) if isinstance(found, float) else found
