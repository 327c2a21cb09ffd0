"""What the stage `adapt` publishes of the private cohort beside the model.

A release is planned into the ledger before it is computed, and training is calibrated
with it as already spent, so both together stay within adapt.privacy.epsilon. Its
numbers are kept in the work folder once and used again by every later run on the same
cohort with the same question: nothing is released twice.

There are two: the attributes' histograms, computed here, and what a private search for
a drift asks of the patients, computed by `drift_search`.
"""

from ldm_jax.config import parsing
from ldm_jax.pipeline import inputs
from ldm_jax.privacy import accounting, ledger, marginals, releases
from ldm_jax.synthesis.requests import PRIOR

NAME = 'attribute marginals'
# What a private search for a drift releases, and where its numbers are kept.
DRIFT_NAMES = {
  'private_mean': 'latent mean, for a drift',
  'private_loss': 'denoising losses over a grid, for a drift',
}
DRIFT = ('store', 'release-drift.json')
# In units of the public scale. Means of patients whose cohort lies elsewhere are longer
# than public ones; losses less those of no drift are about as long.
CLIP_NORMS = {'private_mean': 2.0, 'private_loss': 1.0}


def planned(config, work, book, run):
  """Releases that belong to this run, in the ledger already or not.

  Args:
    config, work: of the run; its cohorts are prepared.
    book: ledger of the private cohort.
    run: the run's random name, None before it has begun.

  Returns:
    List of release dicts for `Ledger.record` (which adds none twice), without those
    whose question the numbers of an earlier run answer.
  """
  asked, known = [], _known(book)
  if _asks_attributes(config) or asks_drift(config):
    split = inputs.splits_of_store(config, work)['private']
    if _asks_attributes(config):
      asked.append((_wanted(config, split.schema, run), PRIOR))
    if asks_drift(config):
      asked.append((wanted_drift(config, work, run), DRIFT))
  return [
    wanted
    for wanted, place in asked
    if wanted['id'] in known or not _kept(wanted, place, work, split, known)
  ]


def publish(config, work, split, book, run, secret_key):
  """Computes the attributes' histograms if they are recorded and not kept yet.

  Call it after `Ledger.record`; what it raises and keeps is told in `publish_once`.

  Args:
    split: the private cohort.
    secret_key: the run's noise key.
  """
  if not _asks_attributes(config):
    return
  wanted = _wanted(config, split.schema, run)
  section = config.adapt.privacy.releases.attributes

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

  publish_once(wanted, PRIOR, work, split, book, secret_key, compute)


def publish_once(wanted, place, work, split, book, secret_key, compute):
  """The numbers of a recorded release: kept ones, or computed now and kept.

  A run killed in between computes the same numbers again: its noise follows from the
  run's secret key.

  Args:
    wanted: the release dict.
    place: names of the file that keeps its numbers in the work folder.
    compute: (secret key of this release alone) -> JSON-able dict of private numbers.

  Raises:
    ValueError: the release stands in no ledger.
  """
  known = _known(book)
  if _kept(wanted, place, work, split, known):
    return work.read_json(*place)
  if wanted['id'] not in known:
    raise ValueError(
      f'{wanted["name"]!r} is not recorded in {book.path}; nothing private may be '
      'computed before it is.'
    )
  numbers = compute(releases.release_key(secret_key, wanted['id']))
  kept = {'id': wanted['id'], 'query': wanted['query'], 'cohort': split.digest()}
  work.write_json({**kept, **numbers}, *place)  # the digest stays in the store
  return {**kept, **numbers}


def asks_drift(config):
  """Whether a private search for a drift belongs to the run."""
  search = config.adapt.drift.search
  return config.adapt.privacy is not None and search in DRIFT_NAMES


def wanted_drift(config, work, run):
  """The release dict of a private search for a drift.

  Patients' parts come in units of a public norm, so the clip norm is known beforehand.
  """
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
  made = {'run': f'{run}/drift', 'query': parsing.digest(about), **made}
  return {**made, 'id': ledger.release_id(run, made)}


def _asks_attributes(config):
  return config.adapt.privacy.releases.attributes.epsilon is not None


def _wanted(config, schema, run):
  """The release dict of the attributes' histograms."""
  privacy = config.adapt.privacy
  section = privacy.releases.attributes
  sigma = accounting.calibrate(section.epsilon, privacy.delta, 1.0, 1)
  num_blocks = len(schema) + len(section.pairs)
  made = releases.planned(NAME, sigma, releases.histograms_norm(num_blocks))
  # Public facts only, since the id is a hash of what is written here.
  pairs = [list(pair) for pair in section.pairs]
  query = parsing.digest([schema.to_config(), section.num_bins, pairs, sigma])
  made = {'run': f'{run}/attributes', 'query': query, **made}
  return {**made, 'id': ledger.release_id(run, made)}


def _known(book):
  return {entry['id'] for entry in book.releases()}


def _kept(wanted, place, work, split, known):
  """Whether the work folder holds the numbers of an equal release of this cohort."""
  kept = work.read_json(*place) or {}
  same = kept.get('query') == wanted['query'] and kept.get('cohort') == split.digest()
  return same and kept['id'] in known
