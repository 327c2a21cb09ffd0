"""The books of the stage `adapt`: noise key, ledger, what its releases spend."""

from ldm_jax.config import parsing
from ldm_jax.data import demonstration_split
from ldm_jax.pipeline import inputs, private_releases
from ldm_jax.privacy import accounting, checks, ledger, privacy_json
from ldm_jax.privacy import secret_key as secret_keys
from ldm_jax.training import private_run

BROUGHT_IN = (
  'the weights brought in from {}: they are taken as learned without the private '
  'patients, which nobody here has checked'
)
UNPROTECTED = (
  'THE MODEL ITSELF: adapt.privacy is None, so the private cohort is used without any '
  'protection. Neither the model nor its samples may be shared.'
)
LOGGED = (
  'losses of private data in log.jsonl and tensorboard/, which '
  'adapt.privacy.log_internal asked for: do not share them'
)


def secret_key(config, work):
  """The noise key of this run of `adapt`: a new one, until its release is recorded.

  Raises:
    ValueError: the release is recorded or a checkpoint is there, but the key is gone:
      other noise would be a second release under the same line of the ledger.
  """
  folder = work.checkpoints('adapt')
  recorded = _recorded(private_ledger(config, work), run_name(work)) is not None
  has_begun = recorded or (folder / 'state').is_dir()
  return private_run.noise_key(folder, config.adapt.privacy, has_begun)


def private_ledger(config, work):
  """The ledger of the private cohort, in ledger.path or else beside the store.

  Raises:
    ValueError: if the store holds a ledger whose releases ledger.path does not know,
      or privacy.json lists more releases than the ledger.
  """
  own = ledger.Ledger(work.path('store', 'ledger-private.jsonl'))
  patients = inputs.splits_of_store(config, work)['private'].patient_names
  section = config.ledger
  book = ledger.Ledger(
    section.path or own.path, None if section.any_cohort else patients
  )
  if section.path:
    known = {release['id'] for release in book.releases()}
    missing = [release for release in own.releases() if release['id'] not in known]
    if missing:
      raise ValueError(
        f'{own.path} lists {len(missing)} releases on these patients that '
        f'ledger.path={section.path!r} does not: they would be forgotten. Begin that '
        "ledger as a copy of this one, or leave ledger.path at ''."
      )
  stated = (work.read_json('privacy.json') or {}).get('releases') or ()
  if len(stated) > len(book.releases()):
    raise ValueError(
      f'privacy.json in {work.root} lists {len(stated)} releases on these patients, '
      f'the ledger {book.path} only {len(book.releases())}. A ledger only grows: set '
      'ledger.path back to the one that was used, or restore the file.'
    )
  return book


def plan_release(config, work, num_patients):
  """Calibrates the noise of the stage `adapt` and records its releases, once.

  What is published beside the model (`private_releases`) counts as spent before
  training.

  Returns:
    The scheme (`privacy.mechanisms`), calibrated; of a resumed run, as it was recorded.
  """
  section, privacy = config.adapt, config.adapt.privacy
  book, run = private_ledger(config, work), run_name(work)
  checks.check_delta(privacy.delta, num_patients)
  mine = _recorded(book, run)
  if mine:
    scheme = private_run.configured(privacy, num_patients, section.steps)
    return private_run.as_recorded(scheme, mine)
  beside = private_releases.planned(config, work, book, run)
  scheme = plan(config, book, num_patients, beside).prepared()
  release = _named(run, scheme.release(f'adapt: {section.method} fine-tuning'))
  book.record_all([*beside, release], (total_epsilon(config), privacy.delta))
  write_statement(config, work)
  return scheme


def record_unprotected(config, work):
  """Records, once, that these patients were used without clipping and without noise.

  From then on the ledger's epsilon is infinite, whatever is added to it.
  """
  book, run = private_ledger(config, work), run_name(work)
  if _recorded(book, run) is None:
    release = {
      'name': f'adapt: {config.adapt.method} fine-tuning without privacy',
      'mechanism': 'gaussian',
      'noise_multiplier': 0.0,
      'sampling_probability': 1.0,
      # Without steps, too: a drift may have been looked for.
      'steps': max(config.adapt.steps, 1),
      'clip_norm': None,
    }
    book.record(_named(run, release))
  write_statement(config, work)


def write_statement(config, work):
  """Rewrites privacy.json from the ledger; stages that touch patients call it."""
  privacy, share = config.adapt.privacy, demonstration_split.share(config.data)
  num_patients = inputs.splits_of_store(config, work)['private'].num_patients
  if privacy is None:
    delta, not_covered = min(1e-5, 0.5 / num_patients), [UNPROTECTED]
    randomness = 'none: adapt.privacy is None, so no noise is added'
  else:
    delta, randomness = privacy.delta, secret_keys.describe_randomness(privacy.seed)
    not_covered = [LOGGED] if privacy.log_internal else []
  not_covered += [BROUGHT_IN.format(path) for path in _brought_in(config)]
  content = private_ledger(config, work).statement(
    delta=delta,
    num_patients=num_patients,
    randomness=randomness,
    config_sha256=parsing.digest(parsing.to_plain(config)),
    not_covered=not_covered,
    unprotected_share=share,
  )
  before = work.read_json('privacy.json')
  privacy_json.write(work.path('privacy.json'), content, before)


def _brought_in(config):
  """Files of weights that this run did not learn."""
  paths = [config.autoencoder.init, config.diffusion.init]
  if config.autoencoder.perceptual.weight:
    paths.append(config.autoencoder.perceptual.weights)
  return [path for path in paths if path]


def plan(config, book, num_patients, beside):
  """The calibrated scheme, within what the ledger and `beside` leave to spend.

  Without ledger.total_epsilon, adapt.privacy.epsilon is the total of all releases on
  these patients; with it, adapt.privacy.epsilon is the part of this run alone, its
  releases `beside` the model included, and the total is checked when they are recorded.
  """
  for release in book.releases():
    if release['noise_multiplier'] == 0:
      raise ValueError(
        f'{release["name"]!r} used these private patients without noise (see '
        f'{book.path}): its epsilon is infinite, and no later noise takes that back, '
        'so no finite epsilon can be claimed on this store. Delete that model and its '
        'samples and start in a new --workdir, or set --config.adapt.privacy=None.'
      )
  privacy = config.adapt.privacy
  scheme = private_run.configured(privacy, num_patients, config.adapt.steps)
  spent = [accounting.event(release) for release in beside]
  if config.ledger.total_epsilon is None:
    mine = {release['id'] for release in beside}
    spent += [accounting.event(r) for r in book.releases() if r['id'] not in mine]
  return scheme.calibrated(privacy.epsilon, privacy.delta, spent)


def total_epsilon(config):
  """The most epsilon that all releases on these patients together may spend."""
  total = config.ledger.total_epsilon
  return config.adapt.privacy.epsilon if total is None else total


def run_name(work):
  """The random name that this run of `adapt` keeps over its resumes."""
  return work.read_json('checkpoints', 'adapt', 'started.json')['run']


def _recorded(book, run):
  """The release that this run has recorded, or None."""
  mine = (release for release in book.releases() if release.get('run') == run)
  return next(mine, None)


def _named(run, release):
  """The release with its run and its id, as the ledger holds it."""
  release = {'run': run, **release}
  return {**release, 'id': ledger.release_id(run, release)}
