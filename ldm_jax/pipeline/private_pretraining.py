"""Which public volumes pre-training draws how often: as the private cohort's classes.

`diffusion.weights='private_histogram'` [PrivImage24]: the private patients' histogram
over classes (combinations of a few attributes) is one release with noise, and public
volumes of a class are drawn the more often, the more private patients are in it. The
pre-trained model is post-processing of that release. The release is in the ledger
before it is computed, and training has what remains of the budget.

[PrivImage24] Li et al., PrivImage: Differentially Private Synthetic Image Generation
  using Diffusion Models with Semantic-Aware Pretraining, USENIX Security 2024. There, a
  classifier trained on public data names the classes, and classes are taken or not;
  here the classes are attributes, and every class keeps some weight."""

import numpy as np

from ldm_jax import processes
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.store.split import Split
from ldm_jax.pipeline import private_budget, private_ledger, private_releases
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import key_origin, marginals, releases
from ldm_jax.privacy import secret_key as secret_keys
from ldm_jax.training import private_run


def check(run: Run) -> None:
  """Refuses classes of attributes that are not there.

  Raises:
    ValueError: naming the key.
  """
  if run.config.diffusion.weights:
    names = tuple(run.config.adapt.privacy.releases.pretraining.attributes)
    if not set(names) <= set(run.schema.names):
      raise ValueError(
        f'adapt.privacy.releases.pretraining.attributes is {names}; expected some of '
        f'{", ".join(run.schema.names)}.'
      )


def weights(run: Run, split: Split) -> np.ndarray | None:
  """How often each public volume is drawn, (n,) with sum 1; None for all alike.

  Args:
    run: the stage `diffusion` has begun.
    split: the public cohort.

  Raises:
    ValueError: the budget is spent.
  """
  config = run.config
  if not config.diffusion.weights:
    return None
  section, private = config.adapt.privacy.releases.pretraining, run.prepared['private']
  # Of several processes the first one alone has the noise and draws it.
  shares = np.asarray(processes.first(lambda: _publish(run, section, private)))
  found = classes(split.schema, section.attributes, section.num_bins, split.attributes)
  return of_shares(shares, found, section.most)


def classes(
  schema: Schema, names: tuple[str, ...], num_bins: int, codes: np.ndarray
) -> np.ndarray:
  """The class of each record: the combination of its attributes' bins.

  Args:
    schema: of k attributes.
    names: those that make the class.
    num_bins: bins of a continuous attribute.
    codes: encoded attributes (v,k).

  Returns:
    (v,) int below `num_classes`.
  """
  bins, sizes = marginals.to_bins(schema, num_bins, codes), _sizes(schema, num_bins)
  columns = [schema.names.index(name) for name in names]
  shape = [sizes[name] for name in names]
  return np.ravel_multi_index([bins[:, column] for column in columns], shape)


def num_classes(schema: Schema, names: tuple[str, ...], num_bins: int) -> int:
  """Number of combinations of the attributes' bins, "missing" included."""
  sizes = _sizes(schema, num_bins)
  return int(np.prod([sizes[name] for name in names]))


def of_shares(shares: np.ndarray, found: np.ndarray, most: float) -> np.ndarray:
  """Weights of records: (share of their class asked for) / (share that they are).

  Args:
    shares: (m,) wanted shares of the classes, >= 0.
    found: (n,) class of each record.
    most: >= 1; ratios are kept within 1/most and most, so every record is drawn.

  Returns:
    (n,) > 0 with sum 1.
  """
  there = np.bincount(found, minlength=len(shares)) / len(found)
  ratio = np.asarray(shares)[found] / there[found]
  result = np.clip(ratio, 1 / most, most)
  return result / result.sum()


def _publish(run, section, private):
  """The noisy shares (list) of the classes: stored ones, or released now."""
  config, folder = run.config, run.work.checkpoints('diffusion')
  name = run.work.read_json('checkpoints', 'diffusion', 'started.json')['run']
  wanted = private_releases.wanted_pretraining(run, name)
  kept = private_releases.kept_pretraining(run, wanted)
  if kept is not None:
    # A run that was killed after it had stored the numbers has left its key.
    secret_keys.destroy_key(folder / private_run.KEY_FILE)
    return kept['shares']
  privacy, known = config.adapt.privacy, private_ledger.ids(run.ledger)
  key = private_run.noise_key(folder, privacy, wanted['id'] in known)
  line = {
    **wanted,
    key_origin.FIELD: key_origin.of_seed(privacy.seed),
    **secret_keys.recorded(secret_keys.generator_of(key)),
  }
  if wanted['id'] not in known:
    total = private_budget.total_epsilon(config)
    run.ledger.record(line, (total, privacy.delta))
    private_budget.write_statement(run)

  def compute(key):
    schema, names = private.schema, section.attributes
    found = classes(schema, names, section.num_bins, private.attributes)
    count = num_classes(schema, names, section.num_bins)
    block = releases.shares(found, private.patient_entries, count)
    (shares,), _ = releases.private_histograms(
      [block], wanted['noise_multiplier'], private.num_patients, key
    )
    return {'shares': shares.tolist(), 'release': line}

  made = private_releases.publish_once(
    run, wanted, private_releases.PRETRAINING, key, compute
  )
  secret_keys.destroy_key(folder / private_run.KEY_FILE)
  return made['shares']


def _sizes(schema, num_bins):
  return marginals.num_shares(schema, num_bins)
