"""Which patients a private step sees, as pure functions of the step.

Poisson sampling of patients is the scheme that the accountant assumes. Nothing here
keeps state, so that a resumed run draws what the uninterrupted one would have drawn."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.data import batching
from ldm_jax.privacy import chacha20


@dataclasses.dataclass(frozen=True)
class PoissonSampler:
  """Independent Bernoulli draws of patients, one per patient and step.

  Attributes:
    num_patients: public number of patients.
    sampling_probability: q, the probability of each patient in each step.
    secret: seed of the draws; keep it out of logs, because anyone who knows it knows
      who was drawn. Hidden from `repr`.
    generator: 'threefry' draws by numpy's Philox, keyed by SHA-256 of the secret;
      'chacha20' by ChaCha20 (`privacy/chacha20.py`).

  Raises:
    ValueError: a probability outside (0, 1], or fewer than one patient.
  """

  num_patients: int
  sampling_probability: float
  secret: bytes | int = dataclasses.field(repr=False)
  generator: str = dataclasses.field(default='threefry', kw_only=True)

  def __post_init__(self):
    if self.num_patients < 1:
      raise ValueError(
        f'expected at least one private patient, got {self.num_patients}; check '
        'data.private.'
      )
    if not 0 < self.sampling_probability <= 1:
      raise ValueError(
        'expected a sampling probability in (0, 1], the expected batch size over the '
        f'number of patients, got {self.sampling_probability}; lower '
        'adapt.privacy.batch_size, or provide more patients.'
      )

  def draw(self, step: int) -> np.ndarray:
    """Returns the sorted patients of one step, possibly none."""
    generator = self._generator('poisson', int(step))
    return np.flatnonzero(
      generator.random(self.num_patients) < self.sampling_probability
    )

  def _generator(
    self, purpose: str, step: int | str
  ) -> np.random.Generator | chacha20.Draws:
    secret = self.secret
    if isinstance(secret, int):
      secret = str(secret).encode()
    material = purpose.encode() + b':' + secret + b':' + str(step).encode()
    if self.generator == chacha20.NAME:
      return chacha20.Draws(material)
    return batching.generator(material)


@dataclasses.dataclass(frozen=True)
class TruncatedPoissonSampler(PoissonSampler):
  """Poisson draws with at most `max_batch_size` patients.

  A larger draw is replaced by a uniformly random subset of exactly that size. The rule
  depends on the size alone, never on the data. Whether a patient is in the batch then
  depends on how many others were drawn, so this is a different mechanism with its own
  accounting (`privacy.mechanisms.TruncatedPoisson`).

  Attributes:
    max_batch_size: the largest number of patients in a step.

  Raises:
    ValueError: max_batch_size below 1, or as PoissonSampler.
  """

  max_batch_size: int

  def __post_init__(self):
    super().__post_init__()
    if self.max_batch_size < 1:
      raise ValueError(
        f'max_batch_size is {self.max_batch_size}; it must be at least 1. Change '
        'adapt.privacy.max_batch_size.'
      )

  def draw(self, step: int) -> np.ndarray:
    """Returns the sorted patients of one step, at most max_batch_size of them."""
    drawn = super().draw(step)
    if drawn.size <= self.max_batch_size:
      return drawn
    generator = self._generator('truncated', int(step))
    return np.sort(generator.choice(drawn, self.max_batch_size, replace=False))


@dataclasses.dataclass(frozen=True)
class CyclicPoissonSampler(PoissonSampler):
  """Poisson draws from one of `num_groups` groups at a time, in turn.

  Each patient belongs to one group for the whole run. The secret determines the group,
  uniformly and independently of all other patients and of the data, so adding or
  removing a patient changes nobody else's group. Step t draws each patient of group
  t mod num_groups with the sampling probability, and nobody else: two steps in which
  the same patient can be drawn are at least num_groups apart.

  Attributes:
    sampling_probability: of a patient when it is the turn of its group.
    num_groups: with 1, the draws are exactly those of PoissonSampler.

  Raises:
    ValueError: fewer than one group, or as PoissonSampler.
  """

  num_groups: int

  def __post_init__(self):
    super().__post_init__()
    if self.num_groups < 1:
      raise ValueError(
        f'num_groups is {self.num_groups}; it must be at least 1. Change '
        'adapt.privacy.num_bands.'
      )

  def groups(self) -> np.ndarray:
    """The group of each patient, (num_patients,) int; as secret as the draws."""
    return self._generator('groups', 'all').integers(
      self.num_groups, size=self.num_patients
    )

  def draw(self, step: int) -> np.ndarray:
    """Returns the sorted patients of one step, possibly none."""
    drawn = super().draw(step)
    return drawn[self.groups()[drawn] == int(step) % self.num_groups]
