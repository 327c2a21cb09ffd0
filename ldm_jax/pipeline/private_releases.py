"""What the stage `adapt` publishes of the private cohort beside the model.

A release is planned into the ledger before it is computed, and training is calibrated
with it as already spent, so both together stay within adapt.privacy.epsilon. Its
numbers are kept in the work folder once and used again by every later run on the same
cohort with the same question: nothing is released twice.

There are two: the attributes' histograms, computed here, and what a private search for
a drift asks of the patients, computed by `drift_search`. A third one is made earlier,
by the stage `diffusion` (`private_pretraining`), and counts as spent here.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from ldm_jax.config import parsing
from ldm_jax.pipeline import private_ledger
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import accounting, marginals, releases
from ldm_jax.synthesis.requests import PRIOR
from ldm_jax.types import Config

NAME = 'attribute marginals'
# What a private search for a drift releases, and where its numbers are kept.
DRIFT_NAMES = {
  'private_mean': 'latent mean, for a drift',
  'private_loss': 'denoising losses over a grid, for a drift',
}
DRIFT = ('store', 'release-drift.json')
# The histogram by which `diffusion` weights public volumes.
PRETRAINING_NAME = 'histogram of classes, for pre-training'
PRETRAINING = ('store', 'release-pretraining.json')
# In units of the public scale. Means of patients whose cohort lies elsewhere are longer
# than public ones; losses less those of no drift are about as long.
CLIP_NORMS = {'private_mean': 2.0, 'private_loss': 1.0}


def planned(run: Run, name: str | None) -> list[dict]:
  """Releases that belong to this run, in the ledger already or not.

  Args:
    run: its cohorts are prepared.
    name: the run's random name, None before it has begun.

  Returns:
    List of release dicts for `Ledger.record` (which adds none twice), without those
    whose question the numbers of an earlier run answer.
  """
  asked, known = [], private_ledger.ids(run.ledger)
  if _asks_attributes(run.config):
    asked.append((_wanted_attributes(run, name), PRIOR))
  if asks_drift(run.config):
    asked.append((wanted_drift(run, name), DRIFT))
  return [
    wanted
    for wanted, place in asked
    if wanted['id'] in known or not _kept(wanted, place, run, known)
  ]


def publish(run: Run, name: str, secret_key: jax.Array) -> None:
  """Computes the attributes' histograms if they are recorded and not stored yet.

  Call it after `private_budget.plan`; errors are those of `publish_once`.

  Args:
    run: of the stage `adapt`.
    name: the run's random name.
    secret_key: the run's noise key.
  """
  if not _asks_attributes(run.config):
    return
  wanted = _wanted_attributes(run, name)
  section, split = run.config.adapt.privacy.releases.attributes, _private(run)

  def compute(key):
    prior, _ = marginals.compute(
      split.schema,
      section.num_bins,
      section.pairs,
      split,
      wanted['noise_multiplier'],
      key,
      NAME,
    )
    return {'prior': prior}

  publish_once(run, wanted, PRIOR, secret_key, compute)


def publish_once(
  run: Run,
  wanted: dict,
  place: tuple[str, ...],
  secret_key: jax.Array,
  compute: Callable[[jax.Array], dict],
) -> dict:
  """The numbers of a recorded release: stored ones, or computed now and stored.

  A run killed in between computes the same numbers again: its noise follows from the
  run's secret key.

  Args:
    run: of the stage `adapt`.
    wanted: the release dict.
    place: names of the file that stores its numbers in the work folder.
    secret_key: the run's noise key.
    compute: (secret key of this release alone) -> JSON-able dict of private numbers.

  Raises:
    ValueError: the release is not in the ledger.
  """
  known = private_ledger.ids(run.ledger)
  if _kept(wanted, place, run, known):
    return run.work.read_json(*place)
  if wanted['id'] not in known:
    raise ValueError(
      f'{wanted["name"]!r} is not recorded in {run.ledger.path}; nothing private may '
      'be computed before it is.'
    )
  numbers = compute(releases.release_key(secret_key, wanted['id']))
  about = {'id': wanted['id'], 'query': wanted['query']}
  kept = {**about, 'cohort': _private(run).digest(), **numbers}
  run.work.write_json(kept, *place)  # the digest stays in the store
  return kept


def wanted_pretraining(run: Run, name: str | None) -> dict:
  """The release dict of the histogram for `diffusion.weights`."""
  privacy, schema = run.config.adapt.privacy, _private(run).schema
  section = privacy.releases.pretraining
  sigma = accounting.calibrate(section.epsilon, privacy.delta, 1.0, 1)
  made = releases.planned(PRETRAINING_NAME, sigma, releases.histograms_norm(1))
  names = list(section.attributes)
  about = [PRETRAINING_NAME, schema.to_config(), section.num_bins, names, sigma]
  made = {'query': parsing.digest(about), **made}
  return private_ledger.named(name, made, 'pretraining')


def kept_pretraining(run: Run, wanted: dict) -> dict | None:
  """The stored numbers of an equal histogram of this cohort, or None."""
  known = private_ledger.ids(run.ledger)
  return (
    run.work.read_json(*PRETRAINING) if _kept(wanted, PRETRAINING, run, known) else None
  )


def before(run: Run) -> list[dict]:
  """What the stage `diffusion` released, or will release, for this run.

  Returns:
    [] where pre-training does not look at the private cohort, else the one release
    dict: as the ledger has it; as the work folder keeps it, where the model came from
    another folder; or as it is planned.

  Raises:
    ValueError: the model is there, and nobody knows its release.
  """
  config = run.config
  if not config.diffusion.weights or config.adapt.init != 'diffusion':
    return []
  wanted = wanted_pretraining(run, None)
  kept = run.work.read_json(*PRETRAINING) or {}
  mine = kept.get('release')
  for release in (*run.ledger.own_releases(), *([mine] if mine else ())):
    if release.get('query') == wanted['query']:
      return [release]
  if run.work.finished('diffusion') is not None:
    raise ValueError(
      f'the model in {run.work.checkpoints("diffusion")} may have been trained with a '
      f'private histogram (diffusion.weights), but neither {run.ledger.path} nor '
      f'{run.work.path(*PRETRAINING)} has its release. Restore that file, or run '
      '--stages=diffusion again after removing the model.'
    )
  return [wanted]


def asks_drift(config: Config) -> bool:
  """Whether a private search for a drift belongs to the run."""
  search = config.adapt.drift.search
  return config.adapt.privacy is not None and search in DRIFT_NAMES


def wanted_drift(run: Run, name: str | None) -> dict:
  """The release dict of a private search for a drift.

  Patients' parts come in units of a public norm, so the clip norm is known beforehand.
  """
  config, work = run.config, run.work
  privacy, section = config.adapt.privacy, config.adapt.drift
  sigma = accounting.calibrate(section.epsilon, privacy.delta, 1.0, 1)
  clip_norm = section.clip_norm or CLIP_NORMS[section.search]
  made = releases.planned(DRIFT_NAMES[section.search], sigma, clip_norm)
  # Public facts: what the latents, and the network that scores them, were made from.
  about = [work.finished('encode'), section.search, clip_norm, sigma]
  if section.search == 'private_loss':
    keys = ('grid', 'num_draws', 'variant', 'target', 'random_std')
    times, diffusion = map(parsing.to_plain, (config.adapt.times, config.diffusion))
    drift = {key: parsing.to_plain(section)[key] for key in keys}
    about += [work.finished('diffusion'), drift, times, diffusion, config.seed]
  made = {'query': parsing.digest(about), **made}
  return private_ledger.named(name, made, 'drift')


def _asks_attributes(config):
  privacy = config.adapt.privacy
  return privacy is not None and privacy.releases.attributes.epsilon is not None


def _wanted_attributes(run, name):
  """The release dict of the attributes' histograms."""
  privacy, schema = run.config.adapt.privacy, _private(run).schema
  section = privacy.releases.attributes
  sigma = accounting.calibrate(section.epsilon, privacy.delta, 1.0, 1)
  num_blocks = len(schema) + len(section.pairs)
  made = releases.planned(NAME, sigma, releases.histograms_norm(num_blocks))
  # Public facts only, since the id is a hash of what is written here.
  pairs = [list(pair) for pair in section.pairs]
  query = parsing.digest([schema.to_config(), section.num_bins, pairs, sigma])
  return private_ledger.named(name, {'query': query, **made}, 'attributes')


def _private(run):
  return run.prepared['private']


def _kept(wanted, place, run, known):
  """Whether the work folder has the numbers of an equal release of this cohort."""
  kept = run.work.read_json(*place) or {}
  same = kept.get('query') == wanted['query']
  same = same and kept.get('cohort') == _private(run).digest()
  return same and kept['id'] in known
