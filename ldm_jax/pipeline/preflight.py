"""What is refused before the hours of training that it would follow."""

from ldm_jax.config import parsing
from ldm_jax.data import folder_scans
from ldm_jax.diffusion import grid, solvers
from ldm_jax.pipeline import (
  fit_autoencoder,
  inputs,
  private_budget,
  private_releases,
  runner,
)
from ldm_jax.privacy import accounting, checks, marginals
from ldm_jax.synthesis import requests, system, tiling
from ldm_jax.training import (
  checkpoint,
  denoising_loss,
  drift_setting,
  methods,
  networks,
  private_run,
  state,
)
from ldm_jax.training.mesh import check_divides, make_mesh


def check_method(config, work):
  """Refuses a method that finds nothing to train, before the training that precedes it.

  Raises:
    ValueError: naming what this network lacks.
  """
  if config.adapt.method == 'full' or not config.data.private.layout:
    return
  schema = inputs.splits_of_store(config, work)['private'].schema
  shapes = state.flatten(networks.denoiser_shapes(config, schema)[0])
  methods.num_trained(config.adapt, shapes)


def check_process(config):
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


def check_requests(config, work):
  """Finds a misspelt request of `sample` or `counterfactual` before training starts.

  Raises:
    ValueError: for requests that cannot be drawn, or an attribute that is not there.
  """
  found = inputs.splits_of_store(config, work)
  schema = next(iter(found.values())).schema
  prior = None
  if config.sample.requests == 'private_prior':
    section = config.adapt.privacy.releases.attributes
    prior = marginals.uniform(schema, section.num_bins, section.pairs)
  asked = requests.draw(config, schema, found.get('public'), prior)
  requests.check_not_copied(config, asked, found)
  for name in set(found) & {'public', 'private'}:
    inputs.conditions(config, found[name])
  system.requested_text(config)
  known = {name.lower() for name in schema.names}
  folder_scans.check(config.counterfactual.source, found)
  for name in config.counterfactual.set:
    if name.lower() not in known:
      raise ValueError(
        f'config.counterfactual.set names the attribute {name!r}, but the data have '
        f'{", ".join(schema.names)}. Correct --config.counterfactual.set.{name}.'
      )


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
  flat = parsing.flatten(config)
  check_divides(mesh, {key: flat[key] for key in sizes})
  if privacy is None or not config.data.private.layout:
    return
  num_patients = inputs.splits_of_store(config, work)['private'].num_patients
  checks.check_delta(privacy.delta, num_patients)
  private_run.configured(privacy, num_patients, config.adapt.steps)
  book = private_budget.private_ledger(config, work)
  if runner.will_start_anew('adapt', config, work):
    beside = private_releases.planned(config, work, book, None)
    events = [accounting.event(release) for release in beside]
    events.append(private_budget.plan(config, book, num_patients, beside).event())
    book.check_budget(
      'this run', events, private_budget.total_epsilon(config), privacy.delta
    )


def check_initial(config, work):
  """Refuses a diffusion.init that is not there or does not fit.

  Raises:
    ValueError: naming what is missing or where the shapes differ.
  """
  if config.diffusion.init:
    split = next(iter(inputs.splits_of_store(config, work).values()))
    shapes, _ = networks.denoiser_shapes(config, split.schema)
    checkpoint.check_fits(config.diffusion.init, shapes['unet'], 'diffusion.init')


# Stage -> functions (config, work) -> None that raise ValueError.
CHECKS = {
  'autoencoder': (fit_autoencoder.check,),
  'diffusion': (check_initial,),
  'adapt': (check_plan, check_method),
  'sample': (check_requests,),
}
