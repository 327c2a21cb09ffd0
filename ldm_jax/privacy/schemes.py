"""Private training as one object: who is drawn, what noise is added, what it costs.

`Poisson`, `TruncatedPoisson`, `Banded` and `FullBatch` each describe a whole run. The
draws (`sampler`), the noise (`noise`) and the accountant's event (`release`, through
`accounting.event`) all come from the same fields, so that noise cannot be paired with
sampling that its accounting does not hold for. `adaptation.private_step` takes the
object, and `private.take_steps` draws from the one that the step was built with. What
a run costs is known without jax: only its noise imports it, so that planning is quick.

Common to all. One patient's contribution to a clipped sum has L2 norm at most
C = clip_norm (`gradients.clipped_sum`), and no other patient's contribution, no
constant and no divisor depends on it. Given the released past, adding or removing a
patient who is in the batch moves the sum by at most C.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016.
[Choquette23] Choquette-Choo et al., (Amplified) Banded Matrix Factorization, NeurIPS
  2023, arXiv:2306.08153.
[Truncated25] arXiv:2508.15089, truncated Poisson sampling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import dp_accounting

from ldm_jax.data import batching
from ldm_jax.privacy import accounting, checks, strategies

if TYPE_CHECKING:
  from ldm_jax.privacy.noise import Correlated, Independent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poisson:
  """DP-SGD: every patient enters every step by an own coin of probability q. [Abadi16]

  Sensitivity. Step t releases f_t + N(0, (sigma C)^2 I), f_t the clipped sum over the
  patients drawn. A patient is drawn with probability q, whatever the others do, and
  then moves f_t by at most C: one Poisson-sampled Gaussian of noise multiplier sigma a
  step, composed adaptively over the steps.

  Attributes:
    num_patients: N, public.
    batch_size: expected patients a step, q N; also the public divisor of the sums.
    steps: number of noisy steps, empty batches included.
    clip_norm: C.
    noise_multiplier: sigma, noise deviation over C; None until `calibrated`.
    clipping: how contributions are kept within C, of `checks.CLIPPING`; where C is
      adaptive, clip_norm is the first, and each step's sum and noise are in units of
      the C of that step, which earlier releases decide.
    quantile: of the patients' norms that an adaptive C follows.

  Raises:
    ValueError: a number out of range.
  """

  # Fields that adapt.privacy sets by the same names.
  settings: ClassVar[tuple[str, ...]] = (
    'batch_size',
    'clip_norm',
    'clipping',
    'quantile',
  )

  num_patients: int
  batch_size: float
  steps: int
  clip_norm: float
  noise_multiplier: float | None = None
  clipping: str = 'constant'
  quantile: float = 0.5

  def __post_init__(self):
    checks.check_clipping(self.clipping)
    checks.check_steps(self.steps)
    checks.check_clip_norm(self.clip_norm)
    checks.check_sampling_probability(self.sampling_probability)
    if self.noise_multiplier is not None:
      checks.check_noise_multiplier(self.noise_multiplier)

  @property
  def sampling_probability(self) -> float:
    """q, the chance of a patient in a step in which it can be drawn."""
    return checks.sampling_probability(self.num_patients, self.batch_size)

  @property
  def expected_batch(self) -> float:
    """Public expected number of patients a step: what sums are divided by."""
    return self.batch_size

  def calibrated(
    self, epsilon: float, delta: float, spent: Iterable[dp_accounting.DpEvent] = ()
  ) -> Self:
    """The same run with the least noise whose total stays within epsilon at delta.

    Args:
      spent: events of earlier releases on these patients, part of the total.
    """
    sigma = accounting.calibrate_release(epsilon, delta, self._described(), spent)
    return dataclasses.replace(self, noise_multiplier=sigma)

  def prepared(self) -> Self:
    """The same run with all that its noise needs beside the noise multiplier."""
    return self

  def sampler(self, secret: bytes) -> batching.PoissonSampler:
    """The draws of this run: an object with `draw(step)` -> patients.

    Args:
      secret: bytes (`mechanism.sampling_secret`).
    """
    return batching.PoissonSampler(self.num_patients, self.sampling_probability, secret)

  def noise(self) -> Independent | Correlated:
    """The noise of this run: `noise.Independent` or `noise.Correlated`."""
    from ldm_jax.privacy import noise

    return noise.Independent(self._sigma())

  def release(self, name: str) -> dict[str, Any]:
    """The release dict of this run for the ledger; any reader recomputes epsilon."""
    release = {
      'name': str(name),
      **self._described(),
      'noise_multiplier': float(self._sigma()),
      'clip_norm': float(self.clip_norm),
    }
    if self.clipping != 'constant':
      release['clipping'] = self.clipping
    accounting.event(release)
    return release

  def event(self) -> dp_accounting.DpEvent:
    """The accountant's event of this run."""
    described = {**self._described(), 'noise_multiplier': self._sigma()}
    return accounting.event(described)

  def _described(self) -> dict[str, Any]:
    return {
      'mechanism': 'gaussian',
      'sampling_probability': float(self.sampling_probability),
      'steps': int(self.steps),
    }

  def _sigma(self):
    if self.noise_multiplier is None:
      raise ValueError(
        f'this {type(self).__name__} run has no noise multiplier yet; call '
        'calibrated(epsilon, delta) first, or give noise_multiplier.'
      )
    return self.noise_multiplier


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedPoisson(Poisson):
  """DP-SGD whose batches hold at most `max_batch_size` patients. [Truncated25]

  A larger draw is replaced by a uniformly random subset of exactly that size.
  Sensitivity: the draw may push one other patient out, so that a patient moves the sum
  by at most 2 C where the limit binds and by C elsewhere; the exact mixture of the two
  is derived in `accountants`. Where the limit never binds in practice (several standard
  deviations above q N) it costs nothing that can be seen in epsilon.

  Attributes:
    max_batch_size: B.
  """

  settings: ClassVar = (*Poisson.settings, 'max_batch_size')

  max_batch_size: int

  def __post_init__(self):
    super().__post_init__()
    checks.check_count('max_batch_size', self.max_batch_size)

  def sampler(self, secret: bytes) -> batching.PoissonSampler:
    return batching.TruncatedPoissonSampler(
      self.num_patients, self.sampling_probability, secret, self.max_batch_size
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
  """DP-BandMF: noise that later steps take back in part. [Choquette23]

  The run releases F + sigma C_clip M^{-1} Z for all steps together, row t being step t:
  F the clipped sums, Z standard normal, M = `strategies.matrix`, lower triangular with
  b bands and columns of norm 1. Multiplying by M, that is M F + sigma C_clip Z.

  Sensitivity. The secret puts each patient into one of b groups, uniformly, independent
  of the data and of all other patients; step t draws from group t mod b only, each
  patient with probability b q. Fix a patient of group j and what all others do. Its
  contribution g_t, |g_t| <= C_clip, is in F_t for t = j, j + b, j + 2b, ... only, each
  time by a coin of its own, and enters M F as the block (column t of M) x g_t. Column t
  is zero outside the rows t ... t + b - 1, so the blocks of two such steps have no row
  in common, and one block has norm |column t| |g_t| <= C_clip. The rows of M F + noise
  thus fall into at most ceil(steps / b) stretches, each of them a Gaussian release of
  sensitivity C_clip on a patient drawn with probability b q, composed adaptively (g_t
  depends on released rows only, as M is lower triangular) [Choquette23]. The group is
  the same with and without the patient, and unknown.

  Conditions, each checked: b q <= 1; b <= steps; columns of norm 1 and no overlap at
  distance b (`strategies.check`); groups and draws by `CyclicPoissonSampler` of the
  same b. With one band this is `Poisson`: the same draws, noise, and event.

  Attributes:
    num_bands: b.
    strategy: coefficients (b,) of M; () until `prepared`. The ledger keeps them, so
      that a resumed run adds the very same noise.
  """

  settings: ClassVar = (*Poisson.settings, 'num_bands')

  num_bands: int
  strategy: tuple[float, ...] = ()

  def __post_init__(self):
    checks.check_count('num_bands', self.num_bands)
    super().__post_init__()
    if self.num_bands > self.steps:
      raise ValueError(
        f'num_bands is {self.num_bands}, but there are {self.steps} steps; required '
        'are at most as many bands as steps. Lower adapt.privacy.num_bands.'
      )
    if not self.strategy:
      return
    object.__setattr__(self, 'strategy', tuple(map(float, self.strategy)))
    if len(self.strategy) != self.num_bands:
      raise ValueError(
        f'the strategy has {len(self.strategy)} coefficients for num_bands = '
        f'{self.num_bands}; required is one a band.'
      )
    strategies.check(self.strategy, self.steps)

  @property
  def sampling_probability(self) -> float:
    """b q: the chance of a patient when its group has its turn."""
    within = self.num_bands * self.batch_size
    if within > self.num_patients:
      raise ValueError(
        f'num_bands is {self.num_bands} and batch_size {self.batch_size}: each group '
        f'must hold a batch, but the private cohort has {self.num_patients} patients '
        f'and {self.num_bands} x {self.batch_size} = {within} are needed. Lower '
        'adapt.privacy.num_bands or adapt.privacy.batch_size.'
      )
    return checks.sampling_probability(self.num_patients, within)

  def prepared(self) -> Self:
    """With the strategy of least error for these steps, found by optimisation."""
    found = strategies.optimal(self.steps, self.num_bands)
    return dataclasses.replace(self, strategy=found)

  def sampler(self, secret: bytes) -> batching.PoissonSampler:
    return batching.CyclicPoissonSampler(
      self.num_patients, self.sampling_probability, secret, self.num_bands
    )

  def noise(self) -> Independent | Correlated:
    from ldm_jax.privacy import noise

    coefficients = self._prepared_strategy()
    if self.num_bands == 1:
      return super().noise()
    return noise.Correlated(self._sigma(), coefficients, self.steps)

  def release(self, name: str) -> dict[str, Any]:
    release = {**super().release(name), 'strategy': list(self._prepared_strategy())}
    accounting.event(release)
    return release

  def _described(self):
    return {
      **super()._described(),
      'mechanism': 'banded_gaussian',
      'num_bands': int(self.num_bands),
    }

  def _prepared_strategy(self):
    if not self.strategy:
      raise ValueError('this Banded run has no strategy yet; call prepared() first.')
    return self.strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullBatch(Poisson):
  """Every patient in every step: q = 1, a Gaussian release a step.

  Sensitivity: a patient moves every sum by at most C. The divisor is N, public.

  Attributes:
    batch_size: N; another is refused.
  """

  settings: ClassVar = ('clip_norm', 'clipping', 'quantile')

  batch_size: float = None  # type: ignore[assignment]  # N is put in its place

  def __post_init__(self):
    if self.batch_size is None:
      object.__setattr__(self, 'batch_size', self.num_patients)
    super().__post_init__()
    if self.batch_size != self.num_patients:
      raise ValueError(
        f'a full batch holds all {self.num_patients} patients, not {self.batch_size}.'
      )


# config.adapt.privacy.mechanism -> the class of the run.
MECHANISMS: dict[str, type[Poisson]] = {
  'poisson': Poisson,
  'truncated_poisson': TruncatedPoisson,
  'banded': Banded,
  'full_batch': FullBatch,
}
