"""The search for a drift, at the start of the stage `adapt`: `adapt.drift.search`.

  grid          the L1 distance of generated to target latents, over adapt.drift.grid;
                where the drift is trained with, after a short trial of training
  closed_form   per channel: what moves the model's latent mean to the target's
  loss          the denoising loss of the drifted starting point on target latents
  private_mean  closed_form, from a private mean of the patients' latent means
  private_loss  loss, from private differences of the patients' losses

The first three look at the target as it is and are refused under adapt.privacy. The
last two are releases: planned and recorded together with training's (`private_budget`,
`private_releases`), computed once and stored. Under adapt.privacy the network is given
public conditions, and nothing else of the private cohort is used. docs/drift.md
compares them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax import atomic, processes
from ldm_jax.data.cohorts import roles
from ldm_jax.data.store.split import Split
from ldm_jax.diffusion import shift
from ldm_jax.diffusion.drift import Drift
from ldm_jax.pipeline import private_budget, private_releases
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import releases
from ldm_jax.report import plots
from ldm_jax.synthesis.drift_probe import Probe
from ldm_jax.training import checkpoint, drift_setting, patients
from ldm_jax.types import Shape

PICTURE = 'drift.png'  # beside the value
NUM_SCALED = 64  # public patients that give a private search its scale


# Latents (n,...,c), conditions (n,k), `patients.patient_arrays` of both, names.
Cohort = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], list[str]]


def find(run: Run) -> Drift | None:
  """Finds the drift that the config searches for and stores it, once.

  It is stored in `drift_setting.FOUND`: a resumed run trains with the same.

  Args:
    run: the stage `adapt` has begun.

  Returns:
    The Drift to train with, or None.

  Raises:
    ValueError: a search that adapt.privacy does not allow.
  """

  def search_once():
    if run.work.read_json(*drift_setting.FOUND) is None:
      _search(run)

  if run.config.adapt.drift.search:
    processes.first(search_once)
  return drift_setting.in_training(run.config, run.work)


def _search(run):
  privacy, section = run.config.adapt.privacy, run.config.adapt.drift
  if (privacy is None) == (section.search in private_releases.DRIFT_NAMES):
    raise ValueError(
      f'adapt.drift.search is {section.search!r} and adapt.privacy is '
      f'{"None" if privacy is None else "set"}; expected private_mean or private_loss '
      'with adapt.privacy, and one of the other searches without. Change one.'
    )
  asked = network(run)
  if privacy is None:
    private_budget.record_unprotected(run)
    target = cohort(run, run.splits['private'])
    found = {**SEARCHES[section.search](asked, target), **roles.mark('private')}
  else:
    found = _privately(run, asked)
  value = np.asarray(found['value'], float).tolist()
  found = {'search': section.search, **found, 'value': value}
  drawn = plots.drift_search(found)
  if drawn is not None:
    atomic.write_bytes(run.work.path(*drift_setting.FOUND[:-1], PICTURE), drawn)
  run.work.write_json(found, *drift_setting.FOUND)
  print(f'adapt: drift {np.round(value, 4).tolist()} by {section.search}')


def network(run: Run) -> Probe:
  """The pre-trained network of a run, ready to be asked about drifts."""
  run.require('diffusion')
  params = checkpoint.load_params(run.work.checkpoints('diffusion'))
  return Probe(run.config, run.denoiser, params, run.key('drift'))


def cohort(run: Run, split: Split) -> Cohort:
  """What the searches need of a cohort."""
  latents, conditions = run.latents(split), run.conditions(split)
  examples = patients.patient_arrays(split, latents, conditions)
  return latents, conditions, examples, split.patient_names


def grid(asked: Probe, target: Cohort) -> dict[str, Any]:
  """The drift of least distance: of sampling alone, or of training where it trains."""
  latents, conditions, _, _ = target
  section = asked.config.adapt.drift
  scores = {'sampling': asked.distances(latents, conditions, 0)}
  if section.training:
    scores['training'] = asked.distances(latents, conditions, section.trial_steps)
  best = int(np.argmin(scores['training' if section.training else 'sampling']))
  scores = {f'distance_{name}': found.tolist() for name, found in scores.items()}
  return {'value': section.grid[best], 'grid': list(section.grid), **scores}


def closed_form(asked: Probe, target: Cohort) -> dict[str, Any]:
  """The drift per channel between the latent means of model and target."""
  latents, conditions, examples, _ = target
  means = releases.latent_means(examples['z'], examples['present'])
  return solve(asked, latents.shape[1:], conditions, means.mean(0))


def solve(
  asked: Probe, shape: Shape, conditions: np.ndarray, target_mean: np.ndarray
) -> dict[str, Any]:
  """`shift.closed_form` of the network, asked with these conditions."""
  model_mean, gain = asked.movement(shape, conditions)
  largest = max(map(abs, asked.config.adapt.drift.grid))
  return {
    'value': shift.closed_form(target_mean, model_mean, gain, largest),
    'target_mean': np.asarray(target_mean, float).tolist(),
    'model_mean': model_mean.tolist(),
    'gain': gain.tolist(),
  }


def loss(asked: Probe, target: Cohort) -> dict[str, Any]:
  """The drift whose starting point has the least denoising loss on the target."""
  values = list(asked.config.adapt.drift.grid)
  differences = releases.loss_parts(asked.losses(target[3], target[2]), values)
  return least(differences.mean(0), values)


def least(differences: np.ndarray, values: list[float]) -> dict[str, Any]:
  """The value of least loss, and the losses less that of no drift."""
  told = np.insert(differences, values.index(0), 0.0)
  return {
    'value': releases.least_drift(differences, values),
    'grid': values,
    'loss_difference': told.tolist(),
  }


SEARCHES = {'grid': grid, 'closed_form': closed_form, 'loss': loss}


def vectors(
  asked: Probe, examples: Mapping[str, np.ndarray], names: Sequence[str]
) -> np.ndarray:
  """One vector a patient, (p,m), that the private searches clip and sum."""
  section = asked.config.adapt.drift
  if section.search == 'private_mean':
    return releases.latent_means(examples['z'], examples['present'])
  return releases.loss_parts(asked.losses(names, examples), section.grid)


def _privately(run, asked):
  """The drift from one release on the private cohort, and public facts."""
  section, public = run.config.adapt.drift, run.splits.get('public')
  if public is None:
    raise ValueError(
      f'adapt.drift.search={section.search!r} takes its scale from public patients, '
      "but data.public is empty. Set adapt.drift.search='' and adapt.drift.value."
    )
  secret_key, private = private_budget.plan(run).secret_key, run.splits['private']
  wanted = private_releases.wanted_drift(run, run.name)
  latents, conditions, examples, names = cohort(run, public)

  def compute(key):
    few = {name: leaf[:NUM_SCALED] for name, leaf in examples.items()}
    scale = releases.public_scale(vectors(asked, few, names[:NUM_SCALED]))
    mean, _ = releases.private_parts(
      vectors(asked, *cohort(run, private)[2:]),
      scale,
      wanted['clip_norm'],
      wanted['noise_multiplier'],
      private.num_patients,
      key,
      wanted['name'],
    )
    return {'mean': mean.tolist(), 'public_scale': scale}

  made = private_releases.publish_once(
    run, wanted, private_releases.DRIFT, secret_key, compute
  )
  if section.search == 'private_mean':
    return solve(asked, latents.shape[1:], conditions, made['mean'])
  return least(np.asarray(made['mean']), list(section.grid))
