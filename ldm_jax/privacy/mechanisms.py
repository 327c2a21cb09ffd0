"""Private training as one object: who is drawn, what noise is added, what it costs.

`Poisson`, `TruncatedPoisson`, `Banded` and `FullBatch` each describe a whole run. The
draws (`sampler`), the noise (`noise`) and the accountant's event (`release`, through
`accounting.event`) are all computed from the same fields, so noise cannot be combined
with sampling for which its accounting does not hold. Only `noise` imports jax, so that
planning is quick.

Common to all. One patient's contribution to a clipped sum has L2 norm at most clip_norm
(`gradients.clipped_sum`), and no other patient's contribution, no constant and no
divisor depends on it. Given the earlier releases, adding or removing a patient who is
in the batch changes the sum by at most clip_norm.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016.
[Choquette23] (Amplified) Banded Matrix Factorization, NeurIPS 2023, arXiv:2306.08153.
[Truncated25] arXiv:2508.15089, truncated Poisson sampling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import dp_accounting

from ldm_jax.privacy import (
  accounting,
  banded_matrix,
  checks,
  finite_precision,
  sampling,
)

if TYPE_CHECKING:
  from ldm_jax.privacy.noise import Correlated, Independent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poisson:
  """DP-SGD: an independent coin of probability q for every patient and step. [Abadi16]

  Sensitivity. Step t releases f_t + N(0, (sigma clip_norm)^2 I), where f_t is the
  clipped sum over the patients drawn. A patient is drawn with probability q,
  independently of the others, and then changes f_t by at most clip_norm: one
  Poisson-sampled Gaussian of noise multiplier sigma per step, composed adaptively over
  the steps.

  Attributes:
    num_patients: N, public.
    batch_size: expected patients per step, q N; also the public divisor of the sums.
    steps: number of noisy steps, including those with an empty batch.
    clip_norm: largest L2 norm of one patient's contribution.
    noise_multiplier: sigma, noise deviation over clip_norm; None until `calibrated`.
    clipping: how contributions are bounded, of `checks.CLIPPING`. With 'adaptive',
      clip_norm is that of the first step; the sum and noise of each step are in units
      of the clip norm of that step, which is a function of earlier releases.
    quantile: of the patients' gradient norms that an adaptive clip norm follows.
    best_of: None, or the mean number of such runs of which only the best is published
      (`private_choice`); it changes the accounting alone.

  Raises:
    ValueError: a number out of range.
  """

  num_patients: int
  batch_size: float
  steps: int
  clip_norm: float
  noise_multiplier: float | None = None
  clipping: str = 'constant'
  quantile: float = 0.5
  best_of: float | None = None

  def __post_init__(self):
    if self.best_of is not None:
      checks.check_best_of(self.best_of)
      if self._described()['mechanism'] != 'best_of_gaussian':
        raise ValueError(
          f'expected best_of=None for {type(self).__name__}, got {self.best_of}; a '
          'private choice is accounted for poisson and full_batch alone. Set '
          'adapt.privacy.mechanism.'
        )
    checks.check_clipping(self.clipping)
    checks.check_steps(self.steps)
    checks.check_clip_norm(self.clip_norm)
    checks.check_sampling_probability(self.sampling_probability)
    if self.noise_multiplier is not None:
      checks.check_noise_multiplier(self.noise_multiplier)

  @property
  def sampling_probability(self) -> float:
    """q, the probability of a patient in a step in which it can be drawn."""
    return checks.sampling_probability(self.num_patients, self.batch_size)

  @property
  def expected_batch(self) -> float:
    """Public expected number of patients per step, by which sums are divided."""
    return self.batch_size

  def calibrated(
    self, epsilon: float, delta: float, spent: Iterable[dp_accounting.DpEvent] = ()
  ) -> Self:
    """This run with the least noise whose total, with `spent`, is in the budget."""
    sigma = accounting.calibrate_release(epsilon, delta, self._described(), spent)
    return dataclasses.replace(self, noise_multiplier=sigma)

  def prepared(self) -> Self:
    """This run with everything its noise needs besides the noise multiplier."""
    return self

  def sampler(
    self, secret: bytes, generator: str = 'threefry'
  ) -> sampling.PoissonSampler:
    """The sampler of this run, from a secret of `secret_key.sampling_secret`.

    Args:
      secret: of the run.
      generator: of `secret_key.generator_of`.
    """
    return sampling.PoissonSampler(
      self.num_patients, self.sampling_probability, secret, generator=generator
    )

  def noise(self) -> Independent | Correlated:
    """The noise of this run."""
    from ldm_jax.privacy import noise

    return noise.Independent(self.sigma())

  def release(self, name: str) -> dict[str, Any]:
    """The release dict of this run for the ledger, from which epsilon follows."""
    release = {
      'name': str(name),
      **self._described(),
      'noise_multiplier': float(self.sigma()),
      'clip_norm': float(self.clip_norm),
      finite_precision.FIELD: finite_precision.ROUNDED,
    }
    if self.clipping != 'constant':
      release['clipping'] = self.clipping
    accounting.event(release)
    return release

  def event(self) -> dp_accounting.DpEvent:
    """The accountant's event of this run."""
    return accounting.event({**self._described(), 'noise_multiplier': self.sigma()})

  def _described(self) -> dict[str, Any]:
    choice = {} if self.best_of is None else {'best_of': float(self.best_of)}
    return {
      'mechanism': 'best_of_gaussian' if choice else 'gaussian',
      **choice,
      'sampling_probability': float(self.sampling_probability),
      'steps': int(self.steps),
    }

  def sigma(self) -> float:
    """The calibrated noise multiplier.

    Raises:
      ValueError: it has not been calibrated or set.
    """
    if self.noise_multiplier is None:
      raise ValueError(
        f'this {type(self).__name__} run has no noise multiplier; call '
        'calibrated(epsilon, delta) first, or set noise_multiplier.'
      )
    return self.noise_multiplier


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedPoisson(Poisson):
  """DP-SGD with at most `max_batch_size` patients per batch. [Truncated25]

  A larger draw is replaced by a uniformly random subset of exactly that size.
  Sensitivity: a drawn patient may displace another one, so a patient changes the sum by
  at most 2 clip_norm where the limit is reached and by clip_norm elsewhere. The exact
  mixture of the two is derived in `accountants`.

  Attributes:
    max_batch_size: largest batch (L in `accountants`, B in the paper).
  """

  max_batch_size: int

  def __post_init__(self):
    super().__post_init__()
    checks.check_count('max_batch_size', self.max_batch_size)

  def sampler(
    self, secret: bytes, generator: str = 'threefry'
  ) -> sampling.PoissonSampler:
    return sampling.TruncatedPoissonSampler(
      self.num_patients,
      self.sampling_probability,
      secret,
      self.max_batch_size,
      generator=generator,
    )

  def _described(self):
    return {
      **super()._described(),
      'mechanism': 'truncated_gaussian',
      'num_patients': int(self.num_patients),
      'max_batch_size': int(self.max_batch_size),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Banded(Poisson):
  """DP-BandMF: correlated noise, part of which later steps cancel. [Choquette23]

  The run releases F + sigma clip_norm M^{-1} Z for all steps together, where row t
  belongs
  to step t: F are the clipped sums, Z is standard normal, and M =
  `banded_matrix.matrix` is lower triangular with b bands and columns of norm 1.
  Multiplied by M, the release is M F + sigma clip_norm Z.

  Sensitivity. The secret assigns each patient to one of b groups, uniformly and
  independently of the data and of all other patients. Step t draws from group t mod b
  only, each patient with probability b q. Fix a patient of group j and what all others
  do. Its contribution g_t, |g_t| <= clip_norm, is in F_t for t = j, j + b, j + 2b, ...
  only, each time by an independent coin, and enters M F as the block (column t of M) x
  g_t. Column t is zero outside the rows t ... t + b - 1, so the blocks of two such
  steps have no row in common, and one block has norm |column t| |g_t| <= clip_norm. The
  rows of M F + noise therefore split into at most ceil(steps / b) ranges, each a
  Gaussian release of sensitivity clip_norm on a patient drawn with probability b q,
  composed adaptively (g_t depends on released rows only, because M is lower triangular)
  [Choquette23]. The group is the same with and without the patient, and is not known to
    the attacker.

  Conditions, each of them checked: b q <= 1; b <= steps; columns of norm 1, and no
  overlap at distance b (`banded_matrix.check`); groups and draws by
  `CyclicPoissonSampler` with the same b. With one band this is `Poisson`: the same
  draws, noise, and event.

  Attributes:
    num_bands: b.
    strategy: coefficients (b,) of M; () until `prepared`. The ledger stores them, so
      that a resumed run adds exactly the same noise.
  """

  num_bands: int
  strategy: tuple[float, ...] = ()

  def __post_init__(self):
    checks.check_count('num_bands', self.num_bands)
    super().__post_init__()
    if self.num_bands > self.steps:
      raise ValueError(
        f'expected at most as many bands as the {self.steps} steps, got num_bands = '
        f'{self.num_bands}; lower adapt.privacy.num_bands.'
      )
    if not self.strategy:
      return
    object.__setattr__(self, 'strategy', tuple(map(float, self.strategy)))
    if len(self.strategy) != self.num_bands:
      raise ValueError(
        f'expected one coefficient per band, num_bands = {self.num_bands}, got '
        f'{len(self.strategy)} coefficients; use prepared() or the ledger.'
      )
    banded_matrix.check(self.strategy, self.steps)

  @property
  def sampling_probability(self) -> float:
    """b q: the probability of a patient when it is the turn of its group."""
    within = self.num_bands * self.batch_size
    if within > self.num_patients:
      raise ValueError(
        f'expected num_bands x batch_size = {self.num_bands} x {self.batch_size} = '
        f'{within} patients or more, so that each group can fill a batch; the private '
        f'cohort has {self.num_patients} patients. Lower '
        'adapt.privacy.num_bands or adapt.privacy.batch_size.'
      )
    return checks.sampling_probability(self.num_patients, within)

  def prepared(self) -> Self:
    """This run with the strategy of least error for its steps (optimised)."""
    found = banded_matrix.optimal(self.steps, self.num_bands)
    return dataclasses.replace(self, strategy=found)

  def sampler(
    self, secret: bytes, generator: str = 'threefry'
  ) -> sampling.PoissonSampler:
    return sampling.CyclicPoissonSampler(
      self.num_patients,
      self.sampling_probability,
      secret,
      self.num_bands,
      generator=generator,
    )

  def noise(self) -> Independent | Correlated:
    from ldm_jax.privacy import noise

    coefficients = self._prepared_strategy()
    if self.num_bands == 1:
      return super().noise()
    return noise.Correlated(self.sigma(), coefficients, self.steps)

  def release(self, name: str) -> dict[str, Any]:
    return {**super().release(name), 'strategy': list(self._prepared_strategy())}

  def _described(self):
    return {
      **super()._described(),
      'mechanism': 'banded_gaussian',
      'num_bands': int(self.num_bands),
    }

  def _prepared_strategy(self):
    if not self.strategy:
      raise ValueError('this Banded run has no strategy; call prepared() first.')
    return self.strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullBatch(Poisson):
  """All patients in every step: q = 1, one Gaussian release per step.

  Sensitivity: a patient changes every sum by at most clip_norm. The divisor N is public
  and equals batch_size; other values are refused.
  """

  batch_size: float = None  # type: ignore[assignment]  # N is put in its place

  def __post_init__(self):
    if self.batch_size is None:
      object.__setattr__(self, 'batch_size', self.num_patients)
    super().__post_init__()
    if self.batch_size != self.num_patients:
      raise ValueError(
        f'expected batch_size = num_patients = {self.num_patients} for a full batch, '
        f'got {self.batch_size}; leave batch_size out.'
      )


# config.adapt.privacy.mechanism -> the class of the run.
MECHANISMS: dict[str, type[Poisson]] = {
  'poisson': Poisson,
  'truncated_poisson': TruncatedPoisson,
  'banded': Banded,
  'full_batch': FullBatch,
}
