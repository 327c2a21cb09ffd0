"""What the stage `adapt` publishes of the private cohort beside the model.

A release is planned into the ledger before it is computed, and training is calibrated
with it as already spent, so both together stay within adapt.privacy.epsilon. Its
numbers are kept in the work folder once and used again by every later run on the same
cohort with the same question: nothing is released twice.
"""

from ldm_jax import config as configs
from ldm_jax import staging
from ldm_jax.privacy import accounting, ledger, marginals, release
from ldm_jax.synthesis.requests import PRIOR

NAME = 'attribute marginals'


def planned(config, work, book, run):
  """Releases that belong to this run, in the ledger already or not.

  Args:
    config, work: of the run; its cohorts are prepared.
    book: ledger of the private cohort.
    run: the run's random name, None before it has begun.

  Returns:
    List of release dicts for `Ledger.record` (which adds none twice), empty when the
    numbers of an earlier run answer the same question.
  """
  if not _asked(config):
    return []
  split = staging.splits_of_store(config, work)['private']
  wanted = _wanted(config, split.schema, run)
  known = {entry['id'] for entry in book.releases()}
  kept = _kept(wanted, work, split, known)
  return [wanted] if wanted['id'] in known or not kept else []


def publish(config, work, split, book, run, secret_key):
  """Computes what is recorded and not kept yet; call it after `Ledger.record`.

  A run killed in between computes the same numbers again: its noise follows from the
  run's secret key.

  Args:
    split: the private cohort.
    secret_key: the run's noise key.

  Raises:
    ValueError: the release stands in no ledger.
  """
  if not _asked(config):
    return
  wanted = _wanted(config, split.schema, run)
  known = {entry['id'] for entry in book.releases()}
  if _kept(wanted, work, split, known):
    return
  if wanted['id'] not in known:
    raise ValueError(
      f'{NAME!r} is not recorded in {book.path}; nothing private may be computed '
      'before it is.'
    )
  section = config.adapt.privacy.releases.attributes
  prior, _ = marginals.compute(
    split.schema,
    section.num_bins,
    section.pairs,
    split,
    wanted['noise_multiplier'],
    release.release_key(secret_key, wanted['id']),
    NAME,
  )
  kept = {'id': wanted['id'], 'query': wanted['query'], 'cohort': split.digest()}
  work.write_json({**kept, 'prior': prior}, *PRIOR)  # the digest stays in the store


def _asked(config):
  return config.adapt.privacy.releases.attributes.epsilon is not None


def _wanted(config, schema, run):
  """The release dict of the attributes' histograms."""
  privacy = config.adapt.privacy
  section = privacy.releases.attributes
  sigma = accounting.calibrate(section.epsilon, privacy.delta, 1.0, 1)
  num_blocks = len(schema) + len(section.pairs)
  made = release.planned(NAME, sigma, release.histograms_norm(num_blocks))
  # Public facts only, since the id is a hash of what is written here.
  pairs = [list(pair) for pair in section.pairs]
  query = configs.digest([schema.to_config(), section.num_bins, pairs, sigma])
  made = {'run': f'{run}/attributes', 'query': query, **made}
  return {**made, 'id': ledger.release_id(run, made)}


def _kept(wanted, work, split, known):
  """Whether the work folder holds the numbers of an equal release of this cohort."""
  kept = work.read_json(*PRIOR) or {}
  same = kept.get('query') == wanted['query'] and kept.get('cohort') == split.digest()
  return same and kept['id'] in known
