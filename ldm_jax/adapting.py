"""How the stage `adapt` fits the private cohort, and the books it keeps of that."""

import jax
import optax

from ldm_jax import config as configs
from ldm_jax import staging
from ldm_jax.data.batching import epoch_batch
from ldm_jax.privacy import accounting, checks, ledger, mechanism, statement
from ldm_jax.training import adaptation, loop, private, state
from ldm_jax.training import diffusion as denoising
from ldm_jax.training.mesh import make_mesh, put_examples
from ldm_jax.training.step import plain_step


def fit_plainly(config, work, split, latents, losses, trained, frozen):
  """Fine-tunes without privacy, patient by patient; returns the final TrainState.

  The ledger learns of it as a release without noise, so that no later statement on
  these patients can claim a finite epsilon.
  """
  section, mesh = config.adapt, make_mesh(**config.mesh)
  key = staging.key(config, 'adapt')
  examples = private.patient_arrays(split, latents)
  optimizer = optax.adam(section.learning_rate)
  step = plain_step(
    denoising.patient_example_losses(denoising.patient_loss(losses, 1)),
    optimizer,
    mesh,
    section.ema_decay,
  )

  def take_step(current, number):
    chosen = epoch_batch(
      split.num_patients, section.batch_size, config.seed, number, True
    )
    batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
    return step(current, frozen, put_examples(mesh, batch), key)

  return loop.train(
    take_step,
    state.create(trained, optimizer),
    section.steps,
    mesh=mesh,
    **staging.loop_arguments(config, work, 'adapt'),
  )


def fit_privately(config, work, split, latents, losses, trained, frozen):
  """Fine-tunes by DP-SGD under the ledger; returns the final TrainState."""
  section, privacy, mesh = config.adapt, config.adapt.privacy, make_mesh(**config.mesh)
  folder, key = work.checkpoints('adapt'), staging.key(config, 'adapt')
  secret_key = private.noise_key(folder, privacy, (folder / 'state').is_dir())
  sampler, sigma = plan_release(config, work, split.num_patients, secret_key)
  optimizer = optax.adam(section.learning_rate)
  step = adaptation.private_step(
    denoising.patient_loss(losses, privacy.noise_multiplicity),
    optimizer,
    mesh,
    section.ema_decay,
    clip_norm=privacy.clip_norm,
    noise_multiplier=sigma,
    expected_batch=privacy.batch_size,
    microbatch=privacy.microbatch,
  )
  return private.take_steps(
    step,
    private.patient_arrays(split, latents),
    sampler,
    privacy.chunk_size,
    state.create(trained, optimizer),
    frozen,
    key=key,
    secret_key=secret_key,
    mesh=mesh,
    num_steps=section.steps,
    **staging.loop_arguments(config, work, 'adapt'),
  )


def private_ledger(work):
  """The ledger of the private cohort; it lies beside the store and only grows."""
  return ledger.Ledger(work.path('store', 'ledger-private.jsonl'))


def plan_release(config, work, num_patients, secret_key):
  """Calibrates the noise of the stage `adapt` and records its release, once.

  Returns:
    (PoissonSampler, noise multiplier).
  """
  section, privacy = config.adapt, config.adapt.privacy
  book, name = private_ledger(work), f'adapt: {section.method} fine-tuning'
  run = work.read_json('checkpoints', 'adapt', 'started.json')['run']
  checks.check_delta(privacy.delta, num_patients)
  secret = mechanism.sampling_secret(secret_key)
  mine = [release for release in book.releases() if release.get('run') == run]
  if mine:
    sampler = private.sampler(privacy, num_patients, secret)
    return sampler, mine[0]['noise_multiplier']
  sampler, sigma = private.plan(
    privacy, section.steps, num_patients, secret, book.events()
  )
  release = {
    'run': run,
    **accounting.training_release(
      name, sampler, sigma, section.steps, privacy.clip_norm
    ),
  }
  release['id'] = ledger.release_id(run, release)
  book.record(release, budget=(privacy.epsilon, privacy.delta))
  write_statement(config, work)
  return sampler, sigma


def write_statement(config, work):
  """Rewrites privacy.json from the ledger; stages that touch patients call it."""
  privacy = config.adapt.privacy
  details = {}
  if privacy is None:
    details['not_covered'] = [
      'THE MODEL ITSELF: adapt.privacy is None, so the private cohort is used without '
      'any protection. Neither the model nor its samples may be shared.'
    ]
  content = private_ledger(work).statement(
    delta=1e-5 if privacy is None else privacy.delta,
    num_patients=staging.splits_of_store(config, work)['private'].num_patients,
    randomness=mechanism.describe_randomness(None if privacy is None else privacy.seed),
    config_sha256=configs.digest(configs.to_plain(config)),
    **details,
  )
  if privacy is None:
    content['epsilon'] = 'inf'
  statement.write(work.path('privacy.json'), content)
