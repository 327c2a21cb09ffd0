"""What is refused before the hours of training that it would follow.

`runner.STAGES` says which stage asks for which check.
"""

from ldm_jax.config import parsing
from ldm_jax.data import folder_scans
from ldm_jax.diffusion import grid, schedules, solvers
from ldm_jax.pipeline import private_budget
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import checks, marginals
from ldm_jax.synthesis import mask_requests, requests, system, tiling
from ldm_jax.training import (
  denoising_loss,
  drift_setting,
  methods,
  networks,
  private_run,
  state,
)
from ldm_jax.training.mesh import check_divides
from ldm_jax.types import Config


def check_method(run: Run) -> None:
  """Refuses a method that finds nothing to train, before the training that precedes it.

  Raises:
    ValueError: naming what this network lacks.
  """
  config = run.config
  if config.adapt.method == 'full' or not config.data.private.layout:
    return
  shapes = state.flatten(networks.denoiser_shapes(config, run.schema)[0])
  methods.num_trained(config.adapt, shapes)


def check_process(config: Config) -> None:
  """Finds what the diffusion process of a config cannot do, before any stage runs.

  Raises:
    ValueError: for schedules, predictions, densities, weights or solvers that do not
      exist or do not go together.
  """
  schedule = networks.schedule(config)
  for adapting in (False, True):
    denoising_loss.configured_losses(config, None, schedule, adapting=adapting)
  drift_setting.check(config, schedule)
  methods.prior_weight(config.adapt)
  section = config.sample
  grid.time_grid(schedule.num_timesteps, section.steps, section.spacing)
  solvers.check_solver(section.solver, section.eta)
  tiling.check(section.decode_tile, section.decode_overlap)


def note_on_noise(config: Config) -> str:
  """What to know of a schedule that does not end in noise; '' of one that does."""
  left = schedules.signal_left(networks.schedule(config))
  if left <= schedules.MOST_SIGNAL_LEFT:
    return ''
  return (
    f'diffusion.schedule keeps {left:.2f} of the signal at its last time, and sampling '
    "starts from pure noise: samples lack part of the data's spread of brightness. "
    f'Expected at most {schedules.MOST_SIGNAL_LEFT}: set '
    '--config.diffusion.schedule.zero_terminal_snr=True (and '
    "a prediction other than 'epsilon'), or a larger beta_end or num_timesteps."
  )


def check_requests(run: Run) -> None:
  """Finds a misspelt request of `sample` or `counterfactual` before training starts.

  Raises:
    ValueError: for requests that cannot be drawn, or an attribute that is not there.
  """
  config, found, schema, prior = run.config, run.prepared, run.schema, None
  if config.sample.requests == 'private_prior':
    section = config.adapt.privacy.releases.attributes
    prior = marginals.uniform(schema, section.num_bins, section.pairs)
  mask_requests.check(config)
  asked = requests.draw(config, schema, found.get('public'), prior)
  requests.check_not_copied(config, asked, found)
  for name in set(found) & {'public', 'private'}:
    run.conditions(found[name])
  system.requested_text(config)
  known = {name.lower() for name in schema.names}
  folder_scans.check(config.counterfactual.source, found)
  for name in config.counterfactual.set:
    if name.lower() not in known:
      raise ValueError(
        f'config.counterfactual.set names the attribute {name!r}, but the data have '
        f'{", ".join(schema.names)}. Correct --config.counterfactual.set.{name}.'
      )


def check_sizes(run: Run) -> None:
  """Refuses batches and a delta that `adapt` would refuse, before training precedes it.

  Raises:
    ValueError: batches that do not fit the cohort or the devices, or a delta that is
      too large.
  """
  config, privacy = run.config, run.config.adapt.privacy
  sizes = ['autoencoder.batch_size', 'diffusion.batch_size']
  if config.data.private.layout:
    private_size = 'adapt.batch_size' if privacy is None else 'adapt.privacy.chunk_size'
    sizes.append(private_size)
  flat = parsing.flatten(config)
  check_divides(run.mesh, {key: flat[key] for key in sizes})
  if privacy is not None and config.data.private.layout:
    num_patients = run.prepared['private'].num_patients
    checks.check_delta(privacy.delta, num_patients)
    private_run.configured(privacy, num_patients, config.adapt.steps)
    # Opened here, so that one that has lost releases is refused as well.
    run.ledger.releases()


def check_budget(run: Run) -> None:
  """Refuses a new run of `adapt` whose budget does not fit beside the ledger.

  Raises:
    ValueError: a budget that is impossible or spent.
  """
  if run.config.adapt.privacy is not None and run.config.data.private.layout:
    private_budget.check_fits(run)


def check_keeps_model(run: Run) -> None:
  """Refuses to replace an adapted model by nothing, where data.private is empty.

  Raises:
    ValueError: the folder has an adapted model and the config no private cohort.
  """
  done = run.work.read_json('checkpoints', 'adapt', 'done.json') or {}
  if done.get('adapted') and not run.config.data.private.layout:
    raise ValueError(
      f'data.private is empty, but {run.work.root} holds a model that was adapted to a '
      'private cohort: the stage adapt would replace it by nothing. Leave that stage '
      'out (--stages=sample,...) to use the model, name the cohort in data.private, or '
      'choose another --workdir.'
    )
