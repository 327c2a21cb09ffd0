"""The search for a drift, at the start of the stage `adapt`: `adapt.drift.search`.

  grid          the L1 distance of generated to target latents, over adapt.drift.grid;
                where the drift is trained with, after a short trial of training
  closed_form   per channel: what moves the model's latent mean to the target's
  loss          the denoising loss of the drifted starting point on target latents
  private_mean  closed_form, from a private mean of the patients' latent means
  private_loss  loss, from private differences of the patients' losses

The first three look at the target as it is and are refused under adapt.privacy. The
last two are releases: planned and recorded together with training's (`private_budget`,
`private_releases`), computed once, kept. Under adapt.privacy the model is asked with
public conditions, and of the private cohort nothing else is used. docs/drift.md
compares them.
"""

import numpy as np

from ldm_jax.diffusion import shift
from ldm_jax.pipeline import inputs, private_budget, private_releases
from ldm_jax.privacy import releases
from ldm_jax.report import plots
from ldm_jax.synthesis.drift_probe import Probe
from ldm_jax.training import checkpoint, drift_setting, networks, patients

PICTURE = 'drift.png'  # beside the value
NUM_SCALED = 64  # public patients that give a private search its scale


def find(config, work, split):
  """Finds the drift that the config searches for and keeps it, once.

  It is kept in `drift_setting.FOUND`: a resumed run trains with the same.

  Args:
    config, work: of the run; the stage `adapt` has begun.
    split: the private cohort.

  Returns:
    The Drift to train with, or None.

  Raises:
    ValueError: a search that adapt.privacy does not allow.
  """
  if config.adapt.drift.search and work.read_json(*drift_setting.FOUND) is None:
    _search(config, work, split)
  return drift_setting.in_training(config, work)


def _search(config, work, split):
  section = config.adapt.drift
  if (config.adapt.privacy is None) == (section.search in private_releases.DRIFT_NAMES):
    raise ValueError(
      f'adapt.drift.search={section.search!r} came with adapt.privacy '
      f'{"None" if config.adapt.privacy is None else "set"}: a search that looks at '
      "private patients without noise needs none, and 'private_mean' and "
      "'private_loss' need it. Change one of the two."
    )
  asked = network(config, work, split)
  if config.adapt.privacy is None:
    private_budget.record_unprotected(config, work)
    target = parts(config, work, split)
    found = {**SEARCHES[section.search](asked, target), 'internal': True}
  else:
    found = _privately(asked, work, split)
  value = np.asarray(found['value'], float).tolist()
  found = {'search': section.search, **found, 'value': value}
  drawn = plots.drift_search(found)
  if drawn is not None:
    work.path(*drift_setting.FOUND[:-1], PICTURE).write_bytes(drawn)
  work.write_json(found, *drift_setting.FOUND)
  print(f'adapt: drift {np.round(value, 4).tolist()} by {section.search}')


def network(config, work, split):
  """The pre-trained network of a run, to be asked."""
  inputs.require(work, 'diffusion')
  return Probe(
    config,
    networks.denoiser(config, split.schema),
    checkpoint.load_params(work.checkpoints('diffusion')),
    inputs.key(config, 'drift'),
  )


def parts(config, work, split):
  """(latents (n,...,c), conditions (n,k), patients' arrays, names) of a cohort."""
  latents, conditions = inputs.latents(work, split), inputs.conditions(config, split)
  examples = patients.patient_arrays(split, latents, conditions)
  return latents, conditions, examples, split.patient_names


def grid(asked, target):
  """The drift of least distance: of sampling alone, or of training where it trains."""
  latents, conditions, _, _ = target
  section = asked.config.adapt.drift
  scores = {'sampling': asked.distances(latents, conditions, 0)}
  if section.training:
    scores['training'] = asked.distances(latents, conditions, section.trial_steps)
  best = int(np.argmin(scores['training' if section.training else 'sampling']))
  scores = {f'distance_{name}': found.tolist() for name, found in scores.items()}
  return {'value': section.grid[best], 'grid': list(section.grid), **scores}


def closed_form(asked, target):
  """The drift per channel between the latent means of model and target."""
  latents, conditions, examples, _ = target
  means = releases.latent_means(examples['z'], examples['present'])
  return solve(asked, latents.shape[1:], conditions, means.mean(0))


def solve(asked, shape, conditions, target_mean):
  """`shift.closed_form` of the network, asked with these conditions."""
  model_mean, gain = asked.movement(shape, conditions)
  largest = max(map(abs, asked.config.adapt.drift.grid))
  return {
    'value': shift.closed_form(target_mean, model_mean, gain, largest),
    'target_mean': np.asarray(target_mean, float).tolist(),
    'model_mean': model_mean.tolist(),
    'gain': gain.tolist(),
  }


def loss(asked, target):
  """The drift whose starting point has the least denoising loss on the target."""
  values = list(asked.config.adapt.drift.grid)
  differences = releases.loss_parts(asked.losses(target[3], target[2]), values)
  return least(differences.mean(0), values)


def least(differences, values):
  """The value of least loss, and the losses less that of no drift."""
  told = np.insert(differences, values.index(0), 0.0)
  return {
    'value': releases.least_drift(differences, values),
    'grid': values,
    'loss_difference': told.tolist(),
  }


SEARCHES = {'grid': grid, 'closed_form': closed_form, 'loss': loss}


def vectors(asked, examples, names):
  """One vector a patient, (p,m), that the private searches clip and sum."""
  section = asked.config.adapt.drift
  if section.search == 'private_mean':
    return releases.latent_means(examples['z'], examples['present'])
  return releases.loss_parts(asked.losses(names, examples), section.grid)


def _privately(asked, work, split):
  """The drift from one release on the private cohort, and public facts."""
  config = asked.config
  section = config.adapt.drift
  public = inputs.splits(config, work).get('public')
  if public is None:
    raise ValueError(
      f'adapt.drift.search={section.search!r} takes its scale from public patients, '
      "but data.public is empty. Set adapt.drift.search='' and adapt.drift.value."
    )
  secret_key = private_budget.secret_key(config, work)
  private_budget.plan_release(config, work, split.num_patients)
  run = work.read_json('checkpoints', 'adapt', 'started.json')['run']
  wanted = private_releases.wanted_drift(config, work, run)
  latents, conditions, examples, names = parts(config, work, public)

  def compute(key):
    few = {name: leaf[:NUM_SCALED] for name, leaf in examples.items()}
    scale = releases.public_scale(vectors(asked, few, names[:NUM_SCALED]))
    mean, _ = releases.private_parts(
      vectors(asked, *parts(config, work, split)[2:]),
      scale,
      wanted['clip_norm'],
      wanted['noise_multiplier'],
      split.num_patients,
      key,
      wanted['name'],
    )
    return {'mean': mean.tolist(), 'public_scale': scale}

  book = private_budget.private_ledger(config, work)
  made = private_releases.publish_once(
    wanted, private_releases.DRIFT, work, split, book, secret_key, compute
  )
  if section.search == 'private_mean':
    return solve(asked, latents.shape[1:], conditions, made['mean'])
  return least(np.asarray(made['mean']), list(section.grid))
