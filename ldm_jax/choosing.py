"""The search for a drift, at the start of the stage `adapt`: `adapt.drift.search`.

  grid          the L1 distance of generated to target latents, over adapt.drift.grid;
                where the drift is trained with, after a short trial of training
  closed_form   per channel: what moves the model's latent mean to the target's
  loss          the denoising loss of the drifted starting point on target latents
  private_mean  closed_form, from a private mean of the patients' latent means
  private_loss  loss, from private differences of the patients' losses

The first three look at the target as it is and are refused under adapt.privacy. The
last two are releases: planned and recorded together with training's (`adapting`,
`releasing`), computed once, kept. Under adapt.privacy the model is asked with public
conditions, and of the private cohort nothing else is used. docs/drift.md compares them.
"""

import numpy as np

from ldm_jax import adapting, releasing, running, staging
from ldm_jax.diffusion import shift
from ldm_jax.privacy import drifts, release
from ldm_jax.report import drift_search
from ldm_jax.synthesis.asked import Asked
from ldm_jax.training import checkpoint, drifted, networks, private

PICTURE = 'drift.png'  # beside the value
NUM_SCALED = 64  # public patients that give a private search its scale


def find(config, work, split):
  """Finds the drift that the config searches for and keeps it, once.

  It is kept in `drifted.FOUND`: a resumed run trains with the same.

  Args:
    config, work: of the run; the stage `adapt` has begun.
    split: the private cohort.

  Returns:
    The Drift to train with, or None.

  Raises:
    ValueError: a search that adapt.privacy does not allow.
  """
  if config.adapt.drift.search and work.read_json(*drifted.FOUND) is None:
    _search(config, work, split)
  return drifted.in_training(config, work)


def _search(config, work, split):
  section = config.adapt.drift
  if (config.adapt.privacy is None) == (section.search in releasing.DRIFT_NAMES):
    raise ValueError(
      f'adapt.drift.search={section.search!r} came with adapt.privacy '
      f'{"None" if config.adapt.privacy is None else "set"}: a search that looks at '
      "private patients without noise needs none, and 'private_mean' and "
      "'private_loss' need it. Change one of the two."
    )
  asked = network(config, work, split)
  if config.adapt.privacy is None:
    adapting.record_unprotected(config, work)
    target = parts(config, work, split)
    found = {**SEARCHES[section.search](asked, target), 'internal': True}
  else:
    found = _privately(asked, work, split)
  value = np.asarray(found['value'], float).tolist()
  found = {'search': section.search, **found, 'value': value}
  drawn = drift_search.picture(found)
  if drawn is not None:
    work.path(*drifted.FOUND[:-1], PICTURE).write_bytes(drawn)
  work.write_json(found, *drifted.FOUND)
  print(f'adapt: drift {np.round(value, 4).tolist()} by {section.search}')


def network(config, work, split):
  """The pre-trained network of a run, to be asked."""
  running.require(work, 'diffusion')
  return Asked(
    config,
    networks.denoiser(config, split.schema),
    checkpoint.load_params(work.checkpoints('diffusion')),
    staging.key(config, 'drift'),
  )


def parts(config, work, split):
  """(latents (n,...,c), conditions (n,k), patients' arrays, names) of a cohort."""
  latents, conditions = staging.latents(work, split), staging.conditions(config, split)
  examples = private.patient_arrays(split, latents, conditions)
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
  means = release.latent_means(examples['z'], examples['present'])
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
  differences = drifts.loss_parts(asked.losses(target[3], target[2]), values)
  return least(differences.mean(0), values)


def least(differences, values):
  """The value of least loss, and the losses less that of no drift."""
  told = np.insert(differences, values.index(0), 0.0)
  return {
    'value': drifts.least(differences, values),
    'grid': values,
    'loss_difference': told.tolist(),
  }


SEARCHES = {'grid': grid, 'closed_form': closed_form, 'loss': loss}


def vectors(asked, examples, names):
  """One vector a patient, (p,m), that the private searches clip and sum."""
  section = asked.config.adapt.drift
  if section.search == 'private_mean':
    return release.latent_means(examples['z'], examples['present'])
  return drifts.loss_parts(asked.losses(names, examples), section.grid)


def _privately(asked, work, split):
  """The drift from one release on the private cohort, and public facts."""
  config = asked.config
  section = config.adapt.drift
  public = staging.splits(config, work).get('public')
  if public is None:
    raise ValueError(
      f'adapt.drift.search={section.search!r} takes its scale from public patients, '
      "but data.public is empty. Set adapt.drift.search='' and adapt.drift.value."
    )
  secret_key = adapting.secret_key(config, work)
  adapting.plan_release(config, work, split.num_patients)
  run = work.read_json('checkpoints', 'adapt', 'started.json')['run']
  wanted = releasing.wanted_drift(config, work, run)
  latents, conditions, examples, names = parts(config, work, public)

  def compute(key):
    few = {name: leaf[:NUM_SCALED] for name, leaf in examples.items()}
    scale = drifts.public_scale(vectors(asked, few, names[:NUM_SCALED]))
    mean, _ = drifts.private_parts(
      vectors(asked, *parts(config, work, split)[2:]),
      scale,
      wanted['clip_norm'],
      wanted['noise_multiplier'],
      split.num_patients,
      key,
      wanted['name'],
    )
    return {'mean': mean.tolist(), 'public_scale': scale}

  book = adapting.private_ledger(config, work)
  made = releasing.publish_once(
    wanted, releasing.DRIFT, work, split, book, secret_key, compute
  )
  if section.search == 'private_mean':
    return solve(asked, latents.shape[1:], conditions, made['mean'])
  return least(np.asarray(made['mean']), list(section.grid))
