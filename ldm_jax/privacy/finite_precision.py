"""What finite precision adds to delta: `delta_floating_point` of privacy.json.

The accountants assume exact Gaussian noise. This module bounds by how much the noise
that is really drawn can raise delta, for the whole ledger, from the fields of its
releases alone. Let H be the divergence sup_E P(E) - e^epsilon Q(E).

'rounded_gaussian', of training (`noise.threefry_normals`). A coordinate is
r cos(theta), with r^2 / 2 = E = G ln 2 - ln(1 - M / 2), G geometric, M and theta
uniform: the first number of a Gaussian pair [Box58] whose second one is discarded,
which is post-processing. G has GEOMETRIC_BITS = k coins, and none of k heads counts as
G = 0. So the pair is the Gaussian one conditioned on length below L = sqrt(2 k ln 2),
but for a factor of at most 1 + 2^-k on the density.
  1. Conditioned noise. Let D = |shift| / deviation be the shift that one patient
     causes. Where an outcome is possible with and without the patient, the ratio of
     the densities is the ideal one, so H is at most the ideal delta / Z plus the
     probability of the other outcomes. Z = P(all pairs shorter than L).
  2. Those outcomes. A pair that is shifted by a is beyond L with probability at most
     h(a) <= a L exp(-(L - a)^2 / 2) (the mean value theorem for exp(-(L - a)^2 / 2)),
     and sum a^2 <= D^2 over n pairs. For pairs with a <= 1/5 the sum of h is at most
     L exp(L / 5 - L^2 / 2) sqrt(n) D (Cauchy-Schwarz). For the others h(a) / a^2 grows
     with a while 1/5 < a < L - 1/5, so their sum is at most h(D). A step is a mixture
     over the draws; conditioned on those of all others, one of at most three Gaussians
     comes out, and the bound is taken twice.
  3. Factors 1 + 2^-k. With eta = 2^-k for each pair of each step, H grows by at most
     2 (e^eta - 1), and Z adds less than e^eta - 1.
For a private choice (`private_choice`) this argument does not carry over, so the
bound is plainer: the pairs of a step are within total variation 2 n 2^-k of Gaussian
ones (what lies beyond L, and the factor), those of all runs together within mean_runs
times steps times that, and H at epsilon grows by at most 1 + e^epsilon times it.
n is bounded by the largest number of coordinates that a key serves, 2^32, so the term
needs no further numbers. For banded noise the same holds for the noise times the
strategy matrix: a patient's block lies in b steps, and there are steps / b blocks.
Rounding the sum to a grid afterwards is post-processing. What is NOT covered: values
are computed in float32, with relative errors up to 2^-21 (tested). The grid, at least
2^8 times coarser, hides but does not remove them.

'discrete_gaussian', of means and histograms (`discrete_gaussian`). Let s be the
deviation in units of the grid, at least 2^34. The probability that a rounded continuous
Gaussian has at k, over the discrete one's, is within exp(-1 / (8 s^2)) and
exp(k^2 / (8 s^4)): the mean over u in [-1/2, 1/2] of exp(-k u / s^2 - u^2 / (2 s^2)),
with cosh x <= exp(x^2 / 2); the sums of both are 1 and 1 up to exp(-2 pi^2 s^2). Within
100 deviations this is 4.3e-18 a coordinate, and rounding a continuous Gaussian is
post-processing: H grows by at most 3 eta for m coordinates, eta = 4.3e-18 m, and m <=
2^20. Outcomes beyond 100 deviations have probability exp(-1800) while D <= 40. The
Renyi divergences need no such term: [Canonne20], concentrated privacy.

[Box58] Box and Muller, A note on the generation of random normal deviates, 1958.
[Canonne20] The Discrete Gaussian for Differential Privacy, arXiv:2004.00010."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Field of a release, and its values.
FIELD = 'noise'
ROUNDED, DISCRETE = 'rounded_gaussian', 'discrete_gaussian'
GEOMETRIC_BITS = 80
LARGEST_SIZE = 2**32  # coordinates of a step
# Length of the longest pair, in standard deviations: no coordinate is beyond it.
END = math.sqrt(2 * GEOMETRIC_BITS * math.log(2))
_NEAR = 0.2


def delta(
  releases: Iterable[Mapping[str, Any]],
  relation: str = 'add_or_remove_one',
  epsilon: float = 0.0,
) -> float:
  """`delta_floating_point` of releases on the same patients, at most 1.

  Args:
    releases: of a ledger. Those without noise, and those of older versions, which do
      not say how their noise was made (`unnamed`), add nothing.
    relation: of `accounting.epsilon`.
    epsilon: at which delta is wanted; it counts for private choices alone.
  """
  return min(1.0, sum(_one(release, relation, epsilon) for release in releases))


def unnamed(releases: Iterable[Mapping[str, Any]]) -> list[str]:
  """Names of the releases with noise that do not say how it was made.

  Versions before 0.2 added float32 normals, whose grid can show who took part.
  """
  return [
    str(release.get('name'))
    for release in releases
    if release.get('noise_multiplier') and release.get(FIELD) is None
  ]


def check(release: Mapping[str, Any]) -> None:
  """Raises ValueError if a release names a noise that does not exist."""
  if release.get(FIELD) not in (None, ROUNDED, DISCRETE):
    raise ValueError(
      f'release {release.get("name")!r}: expected {FIELD} to be {ROUNDED} or '
      f'{DISCRETE}, got {release[FIELD]!r}; if a newer version of ldm_jax wrote it, '
      'use that version.'
    )


def _one(release, relation, epsilon):
  sigma, kind = release.get('noise_multiplier'), release.get(FIELD)
  if not sigma or kind is None:
    return 0.0
  truncated = release.get('mechanism') == 'truncated_gaussian'
  far = relation != 'add_or_remove_one' or truncated
  shift = (2 if far else 1) / sigma
  if kind == DISCRETE:
    return release['steps'] * discrete(shift)
  if 'best_of' in release:
    return chosen(release['steps'], release['best_of'], epsilon)
  return release['steps'] * rounded(shift)


def rounded(shift: float) -> float:
  """The term of one step whose sum a patient shifts by `shift` standard deviations."""
  if not shift < END - _NEAR:
    return 1.0
  far = shift * END * math.exp(-((END - shift) ** 2) / 2)
  near = END * math.exp(_NEAR * END - END**2 / 2) * math.sqrt(LARGEST_SIZE) * shift
  return min(1.0, 2 * (far + near) + 3 * LARGEST_SIZE * 2.0**-GEOMETRIC_BITS)


def chosen(steps: int, mean_runs: float, epsilon: float) -> float:
  """The term of a private choice among runs of `steps` steps; see the docstring."""
  distance = 2 * LARGEST_SIZE * 2.0**-GEOMETRIC_BITS
  with_both = mean_runs * steps * distance
  return with_both * (1 + math.exp(epsilon)) if epsilon < 600 else 1.0


def discrete(shift: float) -> float:
  """The term of one release whose sum a patient shifts by `shift` deviations."""
  return 2.0**-36 if shift <= 40 else 1.0
