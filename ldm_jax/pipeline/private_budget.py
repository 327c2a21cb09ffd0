"""What training on the private cohort may spend, and where that is written down.

  plan             the noise key, the calibrated noise, and all releases of the run in
                   the ledger, before the first step
  calibrated       how much noise the rest of the budget needs
  record_unprotected  the release of a run without privacy: its epsilon is infinite
  write_statement  privacy.json from the ledger

The ledger itself is opened in `private_ledger`; what is published beside the model is
planned in `private_releases`.
"""

import dataclasses

import jax

from ldm_jax import processes
from ldm_jax.config import parsing
from ldm_jax.data import demonstration_split
from ldm_jax.pipeline import private_ledger, private_releases
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import (
  accounting,
  checks,
  key_origin,
  mechanisms,
  privacy_json,
  private_choice,
)
from ldm_jax.privacy import secret_key as secret_keys
from ldm_jax.training import private_run
from ldm_jax.types import Config

BROUGHT_IN = (
  'the weights brought in from {}: they are taken as learned without the private '
  'patients, which nobody here has checked'
)
UNPROTECTED = (
  'THE MODEL ITSELF: adapt.privacy is None, so the private cohort is used without any '
  'protection. Neither the model nor its samples may be shared.'
)
DEMONSTRATION = (
  'demonstration only: noise of a release in {} comes from a fixed or unknown key, so '
  'these patients have no protection, whatever key later runs use. For a private run, '
  'delete what was made here and start in a new --workdir and ledger with '
  'adapt.privacy.seed=None.'
)
NAMED_REGISTRY = (
  'releases of all other work folders on these patients are in the registry that '
  'ledger.registry names: no other registry has any'
)
NAMED_DATASET = (
  'this data set is named {!r} (ledger.dataset): patients of the same identifiers in '
  'data sets of other names are other people'
)
LOGGED = (
  'losses of private data in log.jsonl and tensorboard/, which '
  'adapt.privacy.log_internal asked for: do not share them'
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a private run may do, as the ledger holds it.

  Attributes:
    scheme: who is drawn at each step, and how much noise is added.
    secret_key: of noise and draws.
  """

  scheme: mechanisms.Poisson
  secret_key: jax.Array


def plan(run: Run) -> Plan | None:
  """Makes the noise key, calibrates the noise and records the releases, once a run.

  What is published beside the model (`private_releases`) counts as spent before
  training. A run that resumes gets the key of its file and the noise of the ledger. A
  run without privacy is recorded as such and has no plan.

  Raises:
    ValueError: the budget is spent, or the run was recorded but its key is gone: other
      noise would be a second release under the same line of the ledger.
  """
  section, privacy = run.config.adapt, run.config.adapt.privacy
  if privacy is None:
    processes.first(lambda: record_unprotected(run))
    return None
  made: list[Plan] = []

  def record():
    made.append(_planned(run))
    return private_ledger.release_of(run.ledger, run.name)

  recorded = processes.first(record)
  own = made[0].secret_key if made else None
  key = private_run.told_key(own, privacy.generator)
  if made:
    return Plan(made[0].scheme, key)
  # The others hear key and noise from the first, and ask no file.
  scheme = private_run.configured(privacy, _num_patients(run), section.steps)
  return Plan(private_run.as_recorded(scheme, recorded), key)


def _planned(run):
  section, privacy = run.config.adapt, run.config.adapt.privacy
  folder, num_patients = run.work.checkpoints('adapt'), _num_patients(run)
  recorded = private_ledger.release_of(run.ledger, run.name)
  has_begun = recorded is not None or (folder / 'state').is_dir()
  if privacy.choice:
    _check_undecided(run)
    # Another run of the choice may have recorded it, which says nothing of this one.
    has_key = (folder / private_run.KEY_FILE).exists()
    has_begun = (folder / 'state').is_dir() or (recorded is not None and has_key)
  key = private_run.noise_key(folder, privacy, has_begun)
  checks.check_delta(privacy.delta, num_patients)
  if recorded:
    _check_origin(recorded, privacy)
    scheme = private_run.configured(privacy, num_patients, section.steps)
    return Plan(private_run.as_recorded(scheme, recorded), key)
  beside = private_releases.planned(run, run.name)
  scheme = calibrated(run, beside).prepared()
  release = scheme.release(_title(run.config))
  release = private_ledger.named(run.name, release)
  origin = key_origin.of_seed(privacy.seed)
  if has_begun and origin == key_origin.OPERATING_SYSTEM:
    origin = key_origin.UNKNOWN  # the key was found, and no record says how it was made
  # All noise of the run comes from this key, also that of the releases beside.
  about = {
    key_origin.FIELD: origin,
    **secret_keys.recorded(secret_keys.generator_of(key)),
  }
  lines = [{**each, **about} for each in (*beside, release)]
  # That of pre-training is there, unless the model came with its own ledger.
  lines = [*private_releases.before(run), *lines]
  run.ledger.record_all(lines, (total_epsilon(run.config), privacy.delta))
  write_statement(run)
  return Plan(scheme, key)


def _title(config):
  """Name of the training release in the ledger."""
  if config.adapt.privacy.choice:
    return 'adapt: fine-tuning, the best of a secret number of runs'
  return f'adapt: {config.adapt.method} fine-tuning'


def _check_undecided(run):
  choice = run.config.adapt.privacy.choice
  decided = private_choice.decided(run.ledger.path, choice)
  if decided not in (None, run.own_name):
    raise ValueError(
      f'the private choice {choice!r} has been made, and this run is not the chosen '
      'one; a further run would be a release that nobody counted. Leave '
      'adapt.privacy.choice and best_of at their defaults, or start a new choice by '
      'launch/sweep.py --best_of.'
    )


def _check_origin(recorded, privacy):
  """Refuses a key that is made otherwise than the ledger says (runs of a choice)."""
  made, said = key_origin.of_seed(privacy.seed), recorded.get(key_origin.FIELD)
  if privacy.choice and said != made:
    raise ValueError(
      f'the ledger says that the noise of the private choice {privacy.choice!r} has '
      f'keys of origin {said!r}, but adapt.privacy.seed={privacy.seed} makes one of '
      f'origin {made!r}. Set the seed back.'
    )


def calibrated(run: Run, beside: list[dict]) -> mechanisms.Poisson:
  """The scheme with noise that keeps within what the ledger and `beside` leave.

  Without ledger.total_epsilon, adapt.privacy.epsilon is the total of all releases on
  these patients; with it, adapt.privacy.epsilon is the part of this run alone, its
  releases `beside` the model included, and the total is checked when they are recorded.

  Raises:
    ValueError: nothing is left, or the patients were used without noise before.
  """
  config, book = run.config, run.ledger
  for release in book.releases():
    if release['noise_multiplier'] == 0:
      raise ValueError(
        f'{release["name"]!r} used these private patients without noise (see '
        f'{book.path}): its epsilon is infinite, and no later noise takes that back, '
        'so no finite epsilon can be claimed on this store. Delete that model and its '
        'samples and start in a new --workdir, or set --config.adapt.privacy=None.'
      )
  privacy = config.adapt.privacy
  scheme = private_run.configured(privacy, _num_patients(run), config.adapt.steps)
  before = private_releases.before(run)
  spent = [accounting.event(release) for release in (*before, *beside)]
  if config.ledger.total_epsilon is None:
    mine = {release['id'] for release in (*before, *beside)}
    spent += [accounting.event(r) for r in book.releases() if r['id'] not in mine]
  try:
    return scheme.calibrated(privacy.epsilon, privacy.delta, spent)
  except ValueError as error:
    others = book.others()
    raise ValueError(f'{error} See {book.path}{others}.' if others else error) from None


def total_epsilon(config: Config) -> float:
  """The most epsilon that all releases on these patients together may spend."""
  total = config.ledger.total_epsilon
  return config.adapt.privacy.epsilon if total is None else total


def check_fits(run: Run) -> None:
  """Refuses a new run of `adapt` that would exceed the budget, before it begins.

  Raises:
    ValueError: a budget that is impossible or spent.
  """
  config = run.config
  choice = config.adapt.privacy.choice
  if choice and private_ledger.release_of(
    run.ledger, private_choice.ledger_name(choice)
  ):
    return  # the runs of a choice are one release
  beside = private_releases.planned(run, None)
  known = private_ledger.ids(run.ledger)
  missing = [each for each in private_releases.before(run) if each['id'] not in known]
  events = [accounting.event(release) for release in (*missing, *beside)]
  events.append(calibrated(run, beside).event())
  run.ledger.check_budget(
    'this run', events, total_epsilon(config), config.adapt.privacy.delta
  )


def record_unprotected(run: Run) -> None:
  """Records, once, that these patients were used without clipping and without noise.

  From then on the ledger's epsilon is infinite, whatever is added to it.
  """
  section = run.config.adapt
  if private_ledger.release_of(run.ledger, run.name) is None:
    release = {
      'name': f'adapt: {section.method} fine-tuning without privacy',
      'mechanism': 'gaussian',
      'noise_multiplier': 0.0,
      'sampling_probability': 1.0,
      # Without steps, too: a drift may have been searched for.
      'steps': max(section.steps, 1),
      'clip_norm': None,
      key_origin.FIELD: key_origin.NO_NOISE,
    }
    run.ledger.record(private_ledger.named(run.name, release))
  write_statement(run)


def write_statement(run: Run, destroyed: bool = False) -> dict:
  """Rewrites privacy.json from the ledger; stages that touch patients call it.

  Args:
    run: of the config.
    destroyed: whether the noise key of the run has just been destroyed. The statement
      keeps saying so until a key is there again.

  Returns:
    The statement as written.

  Raises:
    ValueError: the ledger has lost releases.
  """
  config, work, num_patients = run.config, run.work, _num_patients(run)
  privacy, share = config.adapt.privacy, demonstration_split.share(config.data)
  before = work.read_json('privacy.json') or {}
  if privacy is None:
    delta, not_covered = min(1e-5, 0.5 / num_patients), [UNPROTECTED]
    randomness = 'none: adapt.privacy is None, so no noise is added'
  else:
    delta, about = privacy.delta, (privacy.seed, privacy.generator)
    gone = secret_keys.describe_randomness(*about, destroyed=True)
    # Of any stage, also of a run that was cut: pre-training may have a key of its own.
    keys = (work.root / 'checkpoints').glob(f'*/{private_run.KEY_FILE}')
    key_exists = any(keys)
    is_gone = not key_exists and (destroyed or before.get('randomness') == gone)
    randomness = gone if is_gone else secret_keys.describe_randomness(*about)
    not_covered = [LOGGED] if privacy.log_internal else []
  not_covered += [BROUGHT_IN.format(path) for path in _brought_in(config)]
  # Hours may have passed since it was opened.
  private_ledger.check_complete(run.ledger, config, work)
  content = run.ledger.statement(
    delta=delta,
    num_patients=num_patients,
    randomness=randomness,
    config_sha256=parsing.digest(parsing.to_plain(config)),
    assumptions=_assumed(config.ledger),
    not_covered=not_covered,
    unprotected_share=share,
    counts_all=private_ledger.counts_all(config),
    is_decided=_is_decided(run),
  )
  return privacy_json.write(work.path('privacy.json'), content, before)


def _assumed(ledger):
  """What the user says of the ledger, and nobody here can check."""
  found = []
  if ledger.registry not in ('', 'none'):
    found.append(NAMED_REGISTRY)
  if ledger.dataset:
    found.append(NAMED_DATASET.format(ledger.dataset))
  return found


def _is_decided(run):
  """False for a run of a private choice that is not the chosen one (yet)."""
  privacy = run.config.adapt.privacy
  if privacy is None or not privacy.choice:
    return True
  begun = run.work.read_json('checkpoints', 'adapt', 'started.json')
  decided = private_choice.decided(run.ledger.path, privacy.choice)
  return begun is not None and decided == begun['run']


def finish(run: Run) -> None:
  """Destroys the noise key of a run whose model is saved, and writes the statement."""
  secret_keys.destroy_key(run.work.checkpoints('adapt') / private_run.KEY_FILE)
  if write_statement(run, destroyed=True)['demonstration_only']:
    print(f'adapt: WARNING {DEMONSTRATION.format(run.ledger.path)}')


def _num_patients(run):
  return run.prepared['private'].num_patients


def _brought_in(config):
  """Files of weights that this run did not learn."""
  paths = [config.autoencoder.init, config.diffusion.init]
  if config.autoencoder.perceptual.weight:
    paths.append(config.autoencoder.perceptual.weights)
  return [path for path in paths if path]
