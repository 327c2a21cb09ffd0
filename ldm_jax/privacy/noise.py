"""The noise of a private run, as objects: a clipped sum -> the sum with noise.

`add` is a pure function of (sum, memory, key, step). `memory` holds earlier noise that
the next step depends on. It is secret: anyone who knows it can subtract the noise. It
is kept in `Replay`, inside the process, and never in a checkpoint: since every step's
normals follow from (key, step), a resumed run recomputes it from step 0, bit for bit.

[Choquette23] (Amplified) Banded Matrix Factorization, arXiv:2306.08153, Algorithm 9.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import mechanism, strategies
from ldm_jax.privacy.checks import check_noise_multiplier
from ldm_jax.types import Array, PyTree


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
    noisy = mechanism.add_noise(total, key, step, self.noise_multiplier, clip_norm)
    return noisy, memory


@dataclasses.dataclass(frozen=True)
class Correlated:
  """noise_multiplier * clip_norm * M^{-1} z, for the matrix M of `strategies.matrix`.

  With z_t standard normal, x = T^{-1} z of the unscaled Toeplitz matrix T satisfies
  c_0 x_t = z_t - sum_{k=1}^{b-1} c_k x_{t-k}, and M = T D^{-1} with D the diagonal
  matrix of column norms, so step t gets D_t x_t. The memory holds the last b - 1 of the
  x: (b-1, coordinates).

  Attributes:
    noise_multiplier: sigma.
    coefficients: (c_0, ..., c_{b-1}), b >= 2.
    steps: of the whole run; the noise of its last steps depends on it.

  Raises:
    ValueError: an invalid noise multiplier, or as `strategies.check`.
  """

  noise_multiplier: float
  coefficients: tuple[float, ...]
  steps: int
  remembers = True

  def __post_init__(self):
    check_noise_multiplier(self.noise_multiplier)
    strategies.check(self.coefficients, self.steps)

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
    coefficients = jnp.asarray(self.coefficients, jnp.float32)
    slots, size = memory.shape
    x = mechanism.normals(key, step, size)
    for slot in range(slots):  # x_{t-k} is in slot (t - k) mod (b - 1)
      behind = (step - 1 - slot) % slots + 1
      x -= coefficients[behind] * memory[slot]
    x /= coefficients[0]
    memory = memory.at[step % slots].set(x)
    norms = strategies.column_norms(self.coefficients, self.steps)
    scale = jnp.asarray(norms, jnp.float32)[step]
    noise = self.noise_multiplier * clip_norm * scale * x
    return mechanism.add_vector(total, noise), memory


class Replay:
  """Keeps the noise memory of a run between steps, and recomputes it if missing.

  The memory is secret and is never written to a file.
  """

  def __init__(self) -> None:
    # (step, bits of the key, memory before that step).
    self._known: tuple[int, bytes, Array] | None = None

  def __repr__(self):
    return 'Replay(secret)'

  def before(
    self,
    step: int,
    key: jax.Array,
    start: Callable[[], Array],
    again: Callable[[Array, int], Array],
  ) -> Array:
    """Returns the memory before a step and releases it; hand the next one to `keep`.

    Args:
      step: int.
      key: the run's noise key; the memory of another key is not used.
      start: () -> memory before step 0.
      again: (memory, step) -> memory after that step. It must run the same compiled
        program that adds the noise in training, because rounding may differ otherwise.
    """
    known, self._known = self._known, None
    done, memory = 0, None
    if known is not None and known[1] == _bits(key) and known[0] <= step:
      done, _, memory = known
    memory = start() if memory is None else memory
    for earlier in range(done, step):
      memory = again(memory, earlier)
    return memory

  def keep(self, step: int, key: jax.Array, memory: Array) -> None:
    """Keeps the memory as it is before `step`."""
    self._known = step, _bits(key), memory


def _bits(key):
  return np.asarray(jax.random.key_data(key)).tobytes()
