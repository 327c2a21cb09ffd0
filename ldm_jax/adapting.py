"""How the stage `adapt` fits the private cohort, and the books it keeps of that."""

import functools

import jax

from ldm_jax import config as configs
from ldm_jax import pairing, releasing, running, staging
from ldm_jax.data import demonstration
from ldm_jax.data.batching import epoch_batch
from ldm_jax.privacy import accounting, checks, ledger, mechanism, statement
from ldm_jax.training import adaptation, loop, methods, private, state
from ldm_jax.training import diffusion as denoising
from ldm_jax.training.mesh import check_divides, make_mesh, put_examples
from ldm_jax.training.step import plain_step

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


def fit_plainly(config, work, split, latents, losses, trained, frozen):
  """Fine-tunes without privacy, patient by patient; returns the final TrainState.

  The ledger learns of it as a release without noise, so that no later statement on
  these patients can claim a finite epsilon.
  """
  section, mesh = config.adapt, make_mesh(**config.mesh)
  key = staging.key(config, 'adapt')
  record_unprotected(config, work)
  examples = pairing.examples(config, split, latents)
  optimizer = adaptation.optimizer(section)
  step = plain_step(
    denoising.patient_example_losses(methods.patient_loss(section, losses, 1)),
    optimizer,
    mesh,
    section.ema_decay,
  )

  def take_step(current, number):
    chosen = epoch_batch(
      split.num_patients, section.batch_size, config.seed + section.seed, number, True
    )
    batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
    return step(current, frozen, put_examples(mesh, batch), key)

  return loop.train(
    take_step,
    state.create(trained, optimizer, section.ema_decay),
    section.steps,
    mesh=mesh,
    **_marked_internal(staging.loop_arguments(config, work, 'adapt'), None),
  )


def fit_privately(config, work, split, latents, losses, trained, frozen):
  """Fine-tunes by DP-SGD under the ledger; returns the final TrainState."""
  section, privacy, mesh = config.adapt, config.adapt.privacy, make_mesh(**config.mesh)
  key, secret = staging.key(config, 'adapt'), secret_key(config, work)
  scheme = plan_release(config, work, split.num_patients)
  book = private_ledger(config, work)
  releasing.publish(config, work, split, book, _run(work), secret)
  optimizer = adaptation.optimizer(section)
  loss = methods.patient_loss(section, losses, privacy.noise_multiplicity)
  examples = pairing.examples(config, split, latents)
  step = adaptation.private_step(
    loss,
    optimizer,
    mesh,
    section.ema_decay,
    scheme,
    microbatch=privacy.microbatch,
    method=privacy.gradients,
  )
  return private.take_steps(
    step,
    examples,
    split.patient_names,
    privacy.chunk_size,
    state.create(trained, optimizer, section.ema_decay),
    frozen,
    key=key,
    secret_key=secret,
    mesh=mesh,
    observe=private.internal_loss(loss, examples) if privacy.log_internal else None,
    **_marked_internal(staging.loop_arguments(config, work, 'adapt'), privacy),
  )


def secret_key(config, work):
  """The noise key of this run of `adapt`: a new one, until its release is recorded.

  Raises:
    ValueError: the release is recorded or a checkpoint is there, but the key is gone:
      other noise would be a second release under the same line of the ledger.
  """
  folder = work.checkpoints('adapt')
  recorded = _recorded(private_ledger(config, work), _run(work)) is not None
  has_begun = recorded or (folder / 'state').is_dir()
  return private.noise_key(folder, config.adapt.privacy, has_begun)


def private_ledger(config, work):
  """The ledger of the private cohort, in ledger.path or else beside the store.

  Raises:
    ValueError: if the store holds a ledger whose releases ledger.path does not know,
      or privacy.json lists more releases than the ledger.
  """
  own = ledger.Ledger(work.path('store', 'ledger-private.jsonl'))
  patients = staging.splits_of_store(config, work)['private'].patient_names
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

  What is published beside the model (`releasing`) counts as spent before training.

  Returns:
    The scheme (`privacy.schemes`), calibrated; of a resumed run, as it was recorded.
  """
  section, privacy = config.adapt, config.adapt.privacy
  book, run = private_ledger(config, work), _run(work)
  checks.check_delta(privacy.delta, num_patients)
  mine = _recorded(book, run)
  if mine:
    scheme = private.configured(privacy, num_patients, section.steps)
    return private.as_recorded(scheme, mine)
  beside = releasing.planned(config, work, book, run)
  scheme = _plan(config, book, num_patients, beside).prepared()
  release = _named(run, scheme.release(f'adapt: {section.method} fine-tuning'))
  book.record_all([*beside, release], (_total(config), privacy.delta))
  write_statement(config, work)
  return scheme


def record_unprotected(config, work):
  """Records, once, that these patients were used without clipping and without noise.

  From then on the ledger's epsilon is infinite, whatever is added to it.
  """
  book, run = private_ledger(config, work), _run(work)
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


def check_plan(config, work):
  """Refuses what `adapt` would refuse, before the hours of training that precede it.

  Where `adapt` will start anew, its budget must fit beside what the ledger holds.

  Args:
    config, work: of the run; its cohorts are prepared.

  Raises:
    ValueError: for batches that do not fit the cohort or the devices, a delta too
      large, or a budget that is impossible or spent.
  """
  privacy, mesh = config.adapt.privacy, make_mesh(**config.mesh)
  sizes = ['autoencoder.batch_size', 'diffusion.batch_size']
  if config.data.private.layout:
    private_size = 'adapt.batch_size' if privacy is None else 'adapt.privacy.chunk_size'
    sizes.append(private_size)
  flat = configs.flatten(config)
  check_divides(mesh, {key: flat[key] for key in sizes})
  if privacy is None or not config.data.private.layout:
    return
  num_patients = staging.splits_of_store(config, work)['private'].num_patients
  checks.check_delta(privacy.delta, num_patients)
  private.configured(privacy, num_patients, config.adapt.steps)
  book = private_ledger(config, work)
  if running.will_start_anew('adapt', config, work):
    beside = releasing.planned(config, work, book, None)
    events = [accounting.event(release) for release in beside]
    events.append(_plan(config, book, num_patients, beside).event())
    book.check_budget('this run', events, _total(config), privacy.delta)


def write_statement(config, work):
  """Rewrites privacy.json from the ledger; stages that touch patients call it."""
  privacy, share = config.adapt.privacy, demonstration.share(config.data)
  num_patients = staging.splits_of_store(config, work)['private'].num_patients
  if privacy is None:
    delta, not_covered = min(1e-5, 0.5 / num_patients), [UNPROTECTED]
    randomness = 'none: adapt.privacy is None, so no noise is added'
  else:
    delta, randomness = privacy.delta, mechanism.describe_randomness(privacy.seed)
    not_covered = [LOGGED] if privacy.log_internal else []
  not_covered += [BROUGHT_IN.format(path) for path in _brought_in(config)]
  content = private_ledger(config, work).statement(
    delta=delta,
    num_patients=num_patients,
    randomness=randomness,
    config_sha256=configs.digest(configs.to_plain(config)),
    not_covered=not_covered,
    demonstration_split=share,
  )
  before = work.read_json('privacy.json')
  statement.write(work.path('privacy.json'), content, before)


def _brought_in(config):
  """Files of weights that this run did not learn."""
  paths = [config.autoencoder.init, config.diffusion.init]
  if config.autoencoder.perceptual.weight:
    paths.append(config.autoencoder.perceptual.weights)
  return [path for path in paths if path]


def _plan(config, book, num_patients, beside):
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
  scheme = private.configured(privacy, num_patients, config.adapt.steps)
  spent = [accounting.event(release) for release in beside]
  if config.ledger.total_epsilon is None:
    mine = {release['id'] for release in beside}
    spent += [accounting.event(r) for r in book.releases() if r['id'] not in mine]
  return scheme.calibrated(privacy.epsilon, privacy.delta, spent)


def _total(config):
  """The most epsilon that all releases on these patients together may spend."""
  total = config.ledger.total_epsilon
  return config.adapt.privacy.epsilon if total is None else total


def _run(work):
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


def _marked_internal(arguments, privacy):
  """Marks log lines that hold figures of private data without noise."""
  if privacy is not None and not privacy.log_internal:
    return arguments
  return {**arguments, 'log': functools.partial(arguments['log'], internal=True)}
