"""95 % intervals of the evaluation's figures: arrays in, (low, high) out.

Every interval resamples or counts *groups* where groups are given: the two volumes
of one patient are one observation, not two.

[Politis99] Politis, Romano, Wolf, Subsampling, 1999 (delete-half jackknife).
[Wilson27] Wilson, JASA 22, 1927. [Fisher21] Fisher, Metron 1, 1921.
[Newcombe06] Newcombe, Statist. Med. 25, 2006, method 5 (area under the ROC curve).
"""

import numpy as np
from scipy import optimize

Z_95 = 1.959963984540054


def grouped_indices(num_examples, groups=None):
  """Lists the examples of each group: n, groups (n,) or None -> list of arrays.

  Raises ValueError when groups does not name a group for every example.
  """
  if groups is None:
    return [np.array([i]) for i in range(num_examples)]
  groups = np.asarray(groups)
  if groups.shape != (num_examples,):
    raise ValueError(
      f'groups has shape {groups.shape} but there are {num_examples} examples; '
      'pass one group name (for instance the patient) per example'
    )
  _, inverse = np.unique(groups, return_inverse=True)
  return [np.flatnonzero(inverse == g) for g in range(inverse.max() + 1)]


def half_sample(rng, members):
  """Draws half of the groups without replacement: list of arrays -> indices."""
  size = max(1, (len(members) + 1) // 2)
  chosen = rng.choice(len(members), size=size, replace=False)
  return np.concatenate([members[g] for g in np.sort(chosen)])


def half_sampling_interval(value, replicates, floor=None):
  """Interval around `value` from the same statistic on random halves: -> (low, high).

  The spread of a statistic over halves drawn without replacement equals, to first
  order, its sampling spread at full size [Politis99]. Halves keep no duplicates,
  so distances between distributions are not inflated as a bootstrap inflates
  them; their common bias is removed by centring.
  """
  replicates = np.asarray(replicates, np.float64)
  deviations = replicates - replicates.mean()
  low, high = value + np.quantile(deviations, [0.025, 0.975])
  if floor is not None:
    low = max(low, floor)
  return float(low), float(max(high, low))


def bootstrap_mean_interval(values, num_resamples=1000, seed=0):
  """Percentile bootstrap of a mean: (n,) -> (low, high); (None, None) for n < 2."""
  values = np.asarray(values, np.float64)
  if len(values) < 2:
    return None, None
  draws = resampled(len(values), num_resamples, seed)
  low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
  return float(low), float(high)


def resampled(num, num_resamples, seed):
  """Draws with replacement: -> indices (num_resamples, num)."""
  return np.random.default_rng(seed).integers(0, num, size=(num_resamples, num))


def proportion_interval(successes, trials):
  """Interval of a proportion: counts -> (low, high) in [0, 1]. [Wilson27]"""
  if trials == 0:
    return 0.0, 1.0
  p, z2 = successes / trials, Z_95**2
  centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
  half = Z_95 * np.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
  half /= 1 + z2 / trials
  return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def correlation_interval(r, num_pairs):
  """Interval of a Pearson correlation: r, n -> (low, high). [Fisher21]

  Below four pairs nothing is known: (-1, 1).
  """
  if num_pairs < 4:
    return -1.0, 1.0
  centre = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
  half = Z_95 / np.sqrt(num_pairs - 3)
  return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def auc_interval(auc, num_positive, num_negative):
  """Interval of an area under the ROC curve: -> (low, high). [Newcombe06]

  Unlike DeLong's it keeps a width when the two groups separate completely.
  """
  extra = (num_positive + num_negative) / 2 - 1

  def excess(theta):
    spread = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    variance = theta * (1 - theta) * spread / (num_positive * num_negative)
    return (auc - theta) ** 2 - Z_95**2 * variance

  # The excess vanishes at 0 and 1 too when the estimate lies there: step inside.
  inside = min(max(auc, 1e-9), 1 - 1e-9)
  low = 0.0 if auc <= 0 else optimize.brentq(excess, 0.0, inside)
  high = 1.0 if auc >= 1 else optimize.brentq(excess, inside, 1.0)
  return float(low), float(high)
