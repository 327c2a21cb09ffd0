"""The noise of a private run: a clipped sum -> the sum with noise.

What leaves `privatise` is private; nothing before it may be logged or kept. The order
is the whole argument: clipped sum over all devices, noise once, divide by the expected
batch. The expected batch is the public q * N, never the number of patients drawn.

`add` of a noise object is a pure function of (sum, memory, key, step); `memory` holds
earlier noise that the next step refers to, and is a secret: who knows it can subtract
the noise. It lives in `replay.Replay`, inside the process, never in a checkpoint: since
every step's normals come from (key, step), a resumed run computes it again, bit for
bit, from step 0. On several devices each makes its part of the noise (`sharded_noise`).

The noise is made so that float arithmetic tells nothing [Mironov12]:
- A normal is r cos(theta) of 128 random bits (`threefry_normals`); 80 of them decide
  the length r, so that noise ends at 10.5 standard deviations, and what that end costs
  is part of delta (`finite_precision`).
- The noisy sum is rounded to a public grid, a power of two between 2^-13 and 2^-12 of
  the noise's deviation: at least 256 floats of noise fall into each of its cells, as
  many for one sum as for another. A float sum is rounded from the exact one, so what
  is released is a function of (exact sum + noise), whatever the grid of the sum.
- The deviation is multiplied into r, before the product with cos(theta): a product of
  a random number and a constant would skip some floats and hit others twice.

The bits are those of the generator threefry2x32. jax computes its 20 rounds on a CPU in
a loop, each pass of which carries the whole array through memory. Written out they are
one loop over the array that keeps its words in registers, and each coordinate's words
become its normal in the same loop, so that XLA never stores words.

[Box58] Box and Muller, A note on the generation of random normal deviates, 1958.
[Choquette23] (Amplified) Banded Matrix Factorization, arXiv:2306.08153, Algorithm 9.
[Mironov12] On Significance of the Least Significant Bits for Differential Privacy, CCS
  2012.
[Salmon11] Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import banded_matrix, finite_precision
from ldm_jax.privacy.checks import check_noise_multiplier
from ldm_jax.types import PyTree

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA
# The grid of the noisy sum is the power of two below the noise's deviation, times this.
GRID = 2.0**-12
# cos(pi x) = y p(y^2) with y = 1/2 - |x| in [-1/2, 1/2]: the series of sin(pi y).
SINE = tuple(
  (-1) ** k * np.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(7)
)


@dataclasses.dataclass(frozen=True)
class Independent:
  """N(0, (noise_multiplier * clip_norm)^2) on every coordinate, independent per step.

  Raises:
    ValueError: a noise multiplier that is not a finite number above 0.
  """

  noise_multiplier: float
  remembers = False

  def __post_init__(self):
    check_noise_multiplier(self.noise_multiplier)

  def start(self, total: PyTree) -> tuple:
    """The memory before step 0: none."""
    return ()

  def add(
    self,
    total: PyTree,
    memory: tuple,
    key: jax.Array,
    step: int | jax.Array,
    clip_norm: float | jax.Array,
  ) -> tuple[PyTree, tuple]:
    """(clipped sum, (), key, step, clip_norm) -> (float32 tree with noise, ())."""
    noisy = add_noise(total, key, step, self.noise_multiplier, clip_norm)
    return noisy, memory

  def add_part(
    self,
    part: jax.Array,
    memory: tuple,
    key: jax.Array,
    step: int | jax.Array,
    clip_norm: float | jax.Array,
    first: int | jax.Array,
  ) -> tuple[jax.Array, tuple]:
    """`add` for the coordinates (n,) from `first` on of the sum as one vector."""
    deviation = self.noise_multiplier * clip_norm
    vector = normals(key, step, len(part), deviation, first)
    return _rounded(part + vector, grid(self.noise_multiplier, clip_norm)), memory


@dataclasses.dataclass(frozen=True)
class Correlated:
  """noise_multiplier * clip_norm * M^{-1} z, for the matrix M of
  `banded_matrix.matrix`.

  With z_t standard normal, x = T^{-1} z of the unscaled Toeplitz matrix T satisfies
  c_0 x_t = z_t - sum_{k=1}^{b-1} c_k x_{t-k}, and M = T D^{-1} with D the diagonal
  matrix of column norms, so step t gets D_t x_t. The memory holds the last b - 1 of the
  x: (b-1, coordinates).

  Attributes:
    noise_multiplier: sigma.
    coefficients: (c_0, ..., c_{b-1}), b >= 2.
    steps: of the whole run; the noise of its last steps depends on it.

  Raises:
    ValueError: an invalid noise multiplier, or as `banded_matrix.check`.
  """

  noise_multiplier: float
  coefficients: tuple[float, ...]
  steps: int
  remembers = True

  def __post_init__(self):
    check_noise_multiplier(self.noise_multiplier)
    banded_matrix.check(self.coefficients, self.steps)

  def start(self, total: PyTree) -> jax.Array:
    """The memory before step 0: zeros (b-1, number of coordinates)."""
    size = sum(leaf.size for leaf in jax.tree.leaves(total))
    return jnp.zeros((len(self.coefficients) - 1, size), jnp.float32)

  def add(
    self,
    total: PyTree,
    memory: jax.Array,
    key: jax.Array,
    step: int | jax.Array,
    clip_norm: float | jax.Array,
  ) -> tuple[PyTree, jax.Array]:
    """(clipped sum, memory, key, step, clip_norm) -> (float32 noisy tree, memory)."""
    vector, memory = self._vector(memory, key, step, clip_norm, 0)
    spacing = grid(self.noise_multiplier, clip_norm)
    return add_vector(total, vector, spacing), memory

  def add_part(
    self,
    part: jax.Array,
    memory: jax.Array,
    key: jax.Array,
    step: int | jax.Array,
    clip_norm: float | jax.Array,
    first: int | jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """`add` for the coordinates (n,) from `first` on; memory (b-1, n) of these."""
    vector, memory = self._vector(memory, key, step, clip_norm, first)
    return _rounded(part + vector, grid(self.noise_multiplier, clip_norm)), memory

  def _vector(self, memory, key, step, clip_norm, first):
    """(noise (n,), memory after this step), of the coordinates from `first` on."""
    coefficients = jnp.asarray(self.coefficients, jnp.float32)
    slots, size = memory.shape
    x = normals(key, step, size, first=first)
    for slot in range(slots):  # x_{t-k} is in slot (t - k) mod (b - 1)
      behind = (step - 1 - slot) % slots + 1
      x -= coefficients[behind] * memory[slot]
    x /= coefficients[0]
    memory = memory.at[step % slots].set(x)
    norms = banded_matrix.column_norms(self.coefficients, self.steps)
    scale = jnp.asarray(norms, jnp.float32)[step]
    return self.noise_multiplier * clip_norm * scale * x, memory


def threefry_normals(
  key: jax.Array,
  size: int,
  deviation: float | jax.Array = 1.0,
  first: int | jax.Array = 0,
) -> jax.Array:
  """Normals (size,) float32, independent, none beyond 10.53 deviations. [Box58]

  A coordinate is r cos(theta) of its own 128 bits: 80 coins give the whole part of
  log2 of a uniform number, of which r is made, so that the rarest lengths are as finely
  resolved as all others.

  Args:
    key: a typed threefry2x32 key.
    size: below 2**32, the number of counters of one key.
    deviation: standard deviation, > 0.
    first: number of the first one. Each normal follows from key and number alone.

  Raises:
    ValueError: size is 2**32 or more.
  """
  check_size(size)
  place = jnp.arange(size, dtype=jnp.uint32) + jnp.uint32(first)
  key_0, key_1 = jax.random.key_data(key)
  a, b = _hash(key_0, key_1, place, jnp.zeros_like(place))
  c, d = _hash(key_0, key_1, place, jnp.ones_like(place))
  return normals_of_words(a, b, c, d, deviation)


def check_size(size: int) -> None:
  """Raises ValueError for more normals than one key has counters."""
  if size >= finite_precision.LARGEST_SIZE:
    raise ValueError(
      f'expected fewer than 2**32 normals per noise key, got {size}; train fewer '
      'parameters (adapt.method).'
    )


def normals_of_words(
  a: jax.Array,
  b: jax.Array,
  c: jax.Array,
  d: jax.Array,
  deviation: float | jax.Array = 1.0,
) -> jax.Array:
  """Words (n,) uint32 of random bits -> normals (n,) float32 of a deviation.

  Length: r^2 / 2 = G ln 2 - ln(1 - M / 2). G is the number of leading zeros of a, b and
  the low bytes of c and d, 0 if all 80 bits are zero; M is uniform, of the other bits
  of c. Angle: pi x, x uniform in [-1, 1), of the other bits of d.
  """
  low = np.uint32(255)
  rest = (c & low) << np.uint32(24) | (d & low) << np.uint32(16)
  last = jnp.where(rest > 0, jax.lax.clz(rest) + np.uint32(64), 0)
  geometric = jnp.where(b > 0, jax.lax.clz(b) + np.uint32(32), last)
  geometric = jnp.where(a > 0, jax.lax.clz(a), geometric)
  half = (_to_float(c >> np.uint32(8)) + np.float32(0.5)) * np.float32(2**-25)
  energy = _to_float(geometric) * np.float32(np.log(2)) - jnp.log1p(-half)
  signed = jax.lax.bitcast_convert_type(d & ~low, jnp.int32).astype(jnp.float32)
  y = np.float32(0.5) - jnp.abs(signed * np.float32(2**-31))
  cosine = jnp.full_like(y, SINE[-1])
  for coefficient in SINE[-2::-1]:
    cosine = np.float32(coefficient) + y * y * cosine
  return deviation * jnp.sqrt(2 * energy) * (y * cosine)


def _to_float(words):
  """uint32 below 2**24 -> float32; the detour by int32 is one instruction on CPUs."""
  return words.astype(jnp.int32).astype(jnp.float32)


def _hash(key_0, key_1, x_0, x_1):
  """Two words of counters -> two words of bits. [Salmon11, threefry2x32, 20 rounds]"""
  keys = key_0, key_1, key_0 ^ key_1 ^ np.uint32(PARITY)
  x_0, x_1 = x_0 + keys[0], x_1 + keys[1]
  for group, rotations in enumerate(itertools.islice(itertools.cycle(ROTATIONS), 5), 1):
    for bits in rotations:
      x_0 = x_0 + x_1
      x_1 = x_0 ^ ((x_1 << np.uint32(bits)) | (x_1 >> np.uint32(32 - bits)))
    x_0 = x_0 + keys[group % 3]
    x_1 = x_1 + keys[(group + 1) % 3] + np.uint32(group)
  return x_0, x_1


def add_noise(
  clipped_sum: PyTree,
  key: jax.Array,
  step: int | jax.Array,
  noise_multiplier: float,
  clip_norm: float | jax.Array,
  *,
  clip_only: bool = False,
) -> PyTree:
  """Adds N(0, (noise_multiplier * clip_norm)^2) to every coordinate; rounds to `grid`.

  Args:
    clipped_sum: tree of arrays; one patient changes it by at most clip_norm in L2.
    key: the run's noise key. Step t draws one vector for all coordinates, in the order
      of the tree's leaves, from fold_in(key, t). (One draw per leaf would take ten
      times as long to compile.)
    step: int, may be traced.
    noise_multiplier: sigma, a Python number > 0.
    clip_norm: > 0.
    clip_only: True allows noise_multiplier 0: no noise, and epsilon is infinite.

  Returns:
    A float32 tree.

  Raises:
    ValueError: noise_multiplier negative, not finite, or 0 without clip_only.
  """
  check_noise_multiplier(noise_multiplier, clip_only)
  if noise_multiplier == 0:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), clipped_sum)
  size = sum(leaf.size for leaf in jax.tree.leaves(clipped_sum))
  vector = normals(key, step, size, noise_multiplier * clip_norm)
  return add_vector(clipped_sum, vector, grid(noise_multiplier, clip_norm))


def normals(
  key: jax.Array,
  step: int | jax.Array,
  size: int,
  deviation: float | jax.Array = 1.0,
  first: int | jax.Array = 0,
) -> jax.Array:
  """Normals (size,) of one step, from number `first` on.

  No other step or purpose draws them.
  """
  return threefry_normals(jax.random.fold_in(key, step), size, deviation, first)


def grid(noise_multiplier: float, clip_norm: float | jax.Array) -> jax.Array:
  """Public spacing () float32 of noisy sums, a power of two.

  It follows from the noise's deviation: from 2^-13 to 2^-12 of it.
  """
  deviation = jnp.float32(noise_multiplier) * jnp.float32(clip_norm)
  exponent = jax.lax.bitcast_convert_type(deviation, jnp.uint32) & np.uint32(0x7F800000)
  return jax.lax.bitcast_convert_type(exponent, jnp.float32) * np.float32(GRID)


def add_vector(tree: PyTree, vector: jax.Array, spacing: jax.Array) -> PyTree:
  """Adds a vector (all coordinates, in the order of the leaves), rounds to multiples
  of the spacing, a power of two: a float32 tree.
  """
  leaves, structure = jax.tree.flatten(tree)
  ends = np.cumsum([leaf.size for leaf in leaves], dtype=int)
  parts = jnp.split(vector, ends[:-1])
  sums = [
    _rounded(leaf.astype(jnp.float32) + part.reshape(leaf.shape), spacing)
    for leaf, part in zip(leaves, parts, strict=True)
  ]
  return jax.tree.unflatten(structure, sums)


def _rounded(values, spacing):
  return jnp.round(values / spacing) * spacing


def privatise(
  clipped_sum: PyTree,
  key: jax.Array,
  step: int | jax.Array,
  noise_multiplier: float,
  clip_norm: float | jax.Array,
  expected_batch: float,
  *,
  clip_only: bool = False,
) -> PyTree:
  """Turns a clipped sum into the private estimate of the mean gradient.

  Args:
    expected_batch: q * N > 0, public and constant; the other arguments are those of
      `add_noise`.

  Returns:
    A float32 tree: (clipped_sum + noise) / expected_batch.

  Raises:
    ValueError: as `add_noise`, or expected_batch not > 0.
  """
  check_expected_batch(expected_batch)
  noisy = add_noise(
    clipped_sum, key, step, noise_multiplier, clip_norm, clip_only=clip_only
  )
  return jax.tree.map(lambda leaf: leaf / expected_batch, noisy)


def check_expected_batch(expected_batch: float) -> None:
  """Raises ValueError unless the expected batch is above 0."""
  if not expected_batch > 0:
    raise ValueError(
      f'the expected batch is {expected_batch}; it must be positive. '
      'Change adapt.privacy.batch_size.'
    )
