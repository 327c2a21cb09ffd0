"""The pseudo-stage `audit`: attacks the private step of a config, without private data.

Public patients stand in for the private cohort, so nothing private is touched and no
budget is spent. The step is the one that `adapt` would take: same network, loss, clip
norm, noise multiplier, microbatch and devices. Four attacks, see `privacy.canaries`:

- gradient canaries, by a bound that assumes nothing and by one that assumes Gaussian
  noise; both against the epsilon of as many steps at full participation;
- loss canaries: fair coins decide which of the public patients train, and the losses
  after training are to tell them apart;
- influence: the step with and without a patient, under the same noise, for the
  patients of most volumes and those that padding repeats; at most the clip norm;
- noise: its deviation, measured on coordinates that nobody pushes.

Passing proves nothing about what was not attacked; failing shows a broken step.
"""

import jax
import numpy as np
import optax

from ldm_jax import readying, staging
from ldm_jax.data import batching
from ldm_jax.privacy import accounting, audit, canaries, mechanism, statement
from ldm_jax.training import (
  adaptation,
  checkpoint,
  drifted,
  methods,
  networks,
  private,
  state,
)
from ldm_jax.training import diffusion as denoising
from ldm_jax.training.mesh import make_mesh, put_examples, put_state

NUM_PROBED = 4  # patients taken out, one after the other
SPARE = 4096  # coordinates that nobody pushes: they cost nothing and show the noise


def run(config, work):
  """Audits the private step of a config; writes and returns audit.json.

  Args:
    config, work: of a run whose stages up to `diffusion` have finished.

  Raises:
    ValueError: no privacy to audit, or no public cohort to stand in.
    RuntimeError: a bound exceeds its claim, or a patient the clip norm: the step is
      broken. audit.json is written nevertheless.
  """
  section, privacy = config.audit, config.adapt.privacy
  split = staging.splits(config, work).get('public')
  if privacy is None or split is None:
    raise ValueError(
      'audit needs a private step and public patients to try it on; adapt.privacy is '
      f'{"None" if privacy is None else "set"} and data.public is '
      f'{"empty" if split is None else "there"}. Set both.'
    )
  times = section.participations
  scheme = planned(config, work, split)
  stand = _Stand(config, work, split, scheme)
  inside = canaries.coins(split.num_patients, config.seed)
  included = canaries.coins(section.num_canaries, config.seed, 1)
  secret = mechanism.new_noise_key(privacy.seed)
  final, updates = stand.train(inside, included, 2 * times, secret)
  each = 1 - (1 - section.confidence) / 2  # two kinds of bounds share the error
  sigma = scheme.noise_multiplier
  found = {
    'claim': {
      **scheme.release('the run under audit'),
      'epsilon': accounting.epsilon([scheme.event()], privacy.delta)['pld'],
      'delta': privacy.delta,
    },
    'confidence': section.confidence,
    'gradient_canaries': canaries.report(updates, included, sigma, privacy.delta, each),
    'loss_canaries': stand.compare_losses(final, inside, 2 * times, each),
    'influence': stand.influence(secret),
  }
  return conclude(found, work)


def conclude(found, work):
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


def planned(config, work, split):
  """The scheme of `adapt` as calibrated with an empty ledger.

  The size of the private cohort is public; without one, the public cohort's counts.

  Raises:
    ValueError: noise that is correlated over steps, which these canaries do not model.
  """
  privacy = config.adapt.privacy
  if privacy.mechanism == 'banded':
    raise ValueError(
      'audit measures noise that is drawn anew in each step; adapt.privacy.mechanism '
      "is 'banded', whose noise is correlated. Audit the same config with 'poisson'."
    )
  if privacy.clipping == 'adaptive':
    raise ValueError(
      'audit measures noise in units of one clip norm; adapt.privacy.clipping is '
      "'adaptive', which changes it from step to step. Audit the same config with "
      "'constant'."
    )
  cohort = staging.splits(config, work).get('private', split)
  scheme = private.configured(privacy, cohort.num_patients, config.adapt.steps)
  return scheme.calibrated(privacy.epsilon, privacy.delta).prepared()


def holds(found):
  """Whether nothing in the findings contradicts the claim."""
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  return bool(
    gradient['epsilon_low'] <= gradient['epsilon_claimed']
    and loss['epsilon_low'] <= loss['epsilon_claimed']
    and found['influence']['largest'] <= found['influence']['limit']
    and gradient['noise']['high'] >= found['claim']['noise_multiplier']
  )


def text(found):
  """The findings in a few lines for people."""
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  noise = gradient['noise']
  return '\n'.join(
    [
      f'audit: noise multiplier {found["claim"]["noise_multiplier"]:.4g}; measured '
      f'{noise["value"]:.4g} ({noise["low"]:.4g} to {noise["high"]:.4g})',
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

  def __init__(self, config, work, split, scheme):
    self.config, self.num_patients = config, split.num_patients
    self.privacy, self.mesh = config.adapt.privacy, make_mesh(**config.mesh)
    self.key = staging.key(config, 'audit')
    latents = staging.latents(work, split)
    losses, params = networks_of(config, work, split, latents)
    self.trained, frozen = readying.parameters(config, work, params)
    samples = readying.class_samples(config, work, params)
    self.frozen = put_state(self.mesh, {**frozen, **samples})
    draws = self.privacy.noise_multiplicity
    self.loss = methods.patient_loss(config.adapt, losses, draws)
    patients = private.patient_arrays(split, latents, staging.conditions(config, split))
    self.examples = _with_canaries(patients, config.audit.num_canaries)
    self.scheme, self.sigma = scheme, scheme.noise_multiplier
    # A step of this rate moves a coordinate by its private sum in units of C.
    self.plain = optax.sgd(scheme.expected_batch / scheme.clip_norm)

  def step(self, optimizer):
    return adaptation.private_step(
      canaries.with_canaries(self.loss, self.scheme.clip_norm),
      optimizer,
      self.mesh,
      self.config.adapt.ema_decay,
      self.scheme,
      microbatch=self.privacy.microbatch,
    )

  def start(self, optimizer):
    """State at step 0, on the host: a step donates the copy that it is given."""
    marks = np.zeros(self.config.audit.num_canaries + SPARE, np.float32)
    trained = {**self.trained, canaries.LEAF: marks}
    begun = adaptation.begin(
      state.create(trained, optimizer, self.config.adapt.ema_decay), self.scheme
    )
    return jax.tree.map(np.asarray, begun)

  def chunks(self, drawn):
    for chosen, mask in batching.chunks(drawn, self.privacy.chunk_size):
      rows = {name: leaf[chosen] for name, leaf in self.examples.items()}
      yield put_examples(self.mesh, (rows, mask, chosen.astype(np.int32)))

  def train(self, inside, included, num_steps, secret):
    """Trains on the patients inside; canaries that take part join at even steps."""
    optimizer = state.by_prefix(
      optax.adam(self.config.adapt.learning_rate), {canaries.LEAF: self.plain}
    )
    step, patients = self.step(optimizer), np.flatnonzero(inside)
    joined = np.append(patients, self.num_patients + np.flatnonzero(included))

    def take_step(current, number):
      drawn = self.chunks(patients if number % 2 else joined)
      return step(current, self.frozen, drawn, self.key, secret)

    start = put_state(self.mesh, self.start(optimizer))
    return canaries.trace(take_step, start, num_steps)

  def compare_losses(self, final, inside, times, confidence):
    """Bound from losses before less after, of patients inside and outside."""
    one = jax.jit(self.loss)
    # From the host: parameters before and after rest on different sets of devices.
    before, after = jax.device_get((self.trained, dict(final.trained)))
    del after[canaries.LEAF]
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
      'epsilon_claimed': claimed['pld'],
      'epsilon_low': audit.epsilon_from_coins(scores, inside, delta, confidence),
      'participations': times,
      'patients': self.num_patients,
    }
    if 2 <= inside.sum() <= inside.size - 2:
      auc = audit.membership_auc(scores[inside], scores[~inside], confidence)
      found['membership'] = auc
    return found

  def _seen(self, patient):
    example = {name: leaf[patient] for name, leaf in self.examples.items()}
    del example[canaries.LEAF]
    return example, jax.random.fold_in(self.key, patient)

  def influence(self, secret):
    """Largest move of the step by one patient, in clip norms, under equal noise."""
    step, start = self.step(self.plain), self.start(self.plain)
    volumes = self.examples['present'][: self.num_patients].sum(axis=1)
    # Padding repeats row 0; a canary's gradient is the largest there is.
    probed = [0, *np.argsort(-volumes)[: NUM_PROBED - 2], self.num_patients]
    probed = sorted({int(patient) for patient in probed})

    def moved(drawn):
      current = put_state(self.mesh, jax.tree.map(np.copy, start))
      chosen = self.chunks(np.asarray(drawn))
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
    return {'largest': largest, 'limit': limit, 'patients': len(probed)}


def networks_of(config, work, split, latents):
  """(losses, nested parameters) that `adapt` starts from, without a private volume."""
  module = networks.denoiser(config, split.schema)
  drift, schedule = drifted.in_training(config, work, False), networks.schedule(config)
  losses = denoising.configured_losses(config, module, schedule, drift, adapting=True)
  if config.adapt.init == 'diffusion':
    staging.require(work, 'diffusion')
    return losses, checkpoint.load_params(work.checkpoints('diffusion'))
  return losses, networks.initial_denoiser(
    module, staging.key(config, 'init'), latents.shape[1:], len(split.schema)
  )


def _with_canaries(patients, num_canaries):
  """Appends the canaries: rows like the first patient's, and whose coordinate."""
  rows = {
    name: np.concatenate([leaf, np.repeat(leaf[:1], num_canaries, axis=0)])
    for name, leaf in patients.items()
  }
  own = np.full(len(rows['present']), canaries.NOBODY, np.int32)
  own[-num_canaries:] = np.arange(num_canaries)
  return {**rows, canaries.LEAF: own}


def _finite(found):
  """Nested figures with 'inf' as text, which strict JSON can hold."""
  if isinstance(found, dict):
    return {name: _finite(value) for name, value in found.items()}
  return statement.finite(found) if isinstance(found, float) else found
