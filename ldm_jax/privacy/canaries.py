"""Canaries: artificial patients whose effect on every update is known in advance.

A gradient canary owns one coordinate of an extra parameter. Its gradient there is as
large as clipping allows, and zero everywhere else. Its whole influence on a step is
therefore one number, which the attacker reads from the update: this is the worst case
that the guarantee must cover, and the most sensitive test of clipping and noise
together. A fair coin decides for each canary whether it takes part [Steinke23]. The
attacker sees every update (white box) and knows the steps in which the participating
canaries are drawn, so there is no amplification by sampling, and the claim under test
is that of full participation.

`with_canaries` adds canaries to any loss of one patient, so that they pass through the
step that trains: gradient, clipping, sum over devices, noise, division.

Banded noise. An attacker who knows the strategy matrix M, which privacy.json contains,
multiplies the updates by it: M (F + sigma clip_norm M^{-1} Z) = M F + sigma clip_norm Z
has independent noise again. A canary of the first group, drawn at steps t = 0, b, 2b,
... with norm clip_norm, enters the rows t ... t + b - 1 by column t of M, which has
norm 1 and shares no row with the columns of the other turns of its group
[Choquette23]. The best statistic is the product of that column with those rows, in
units of clip_norm: 1 + N(0, sigma^2), independent from turn to turn, as if each turn
were one step with independent noise. `turns` computes it, and the claim is that of as
many steps as there are turns.

Clipping per layer. One extra parameter would be one of L, whose share of the norm is
clip_norm / sqrt(L). So every trained parameter gets coordinates for the canaries at its
end (`together`), a canary pushes its own in each of them, which adds up to clip_norm,
and the attacker reads the sum of these coordinates over sqrt(L): in units of the clip
norm again 1 + N(0, sigma^2). Such parameters are no layers to ghost norms, so ordinary
gradients are under attack here.

Adaptive clipping. The clip norm of a step is a function of earlier releases, so the
attacker knows it. Contribution and noise are proportional to it, and the updates that
`trace` returns are in units of it. The bit takes BIT_SHARE of a canary's norm, its
coordinate the rest.

[Choquette23] Choquette-Choo et al., (Amplified) Banded Matrix Factorization, NeurIPS
  2023, arXiv:2306.08153 (the sensitivity; proof in schemes.Banded).
[Steinke23] Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run, 2023.
[Nasr23] Nasr et al., Tight Auditing of DP-SGD, USENIX 2023 (canary gradients).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldm_jax.privacy import accounting, banded_matrix, clipping, epsilon_lower_bounds
from ldm_jax.types import Array, Shape

State = Any  # training.state.TrainState, which privacy must not import
# Path of the extra parameter, and the entry of an example with its canary's number.
LEAF = 'canary'
NOBODY = -1
# Gradient of a canary in units of the first clip norm: above every adaptive one.
PUSH = 10 * clipping.RANGE
INDEPENDENT = (1.0,)  # strategy of noise that is independent in each step


def with_canaries(
  loss: Callable[..., jax.Array], clip_norm: float
) -> Callable[..., jax.Array]:
  """Wraps the loss of one patient so that marked examples are canaries.

  Args:
    loss: (trained, frozen, example, key) -> ().
    clip_norm: of the step that is audited; the first one, where it is adaptive.

  Returns:
    A function of the same kind. `trained` has the extra entry LEAF (n,), or several
    whose paths begin with LEAF, `example` the extra entry LEAF (), the canary's number
    or NOBODY.
  """

  def wrapped(trained, frozen, example, key):
    (others, marks), own = _parted(trained), example[LEAF]
    rest = {name: leaf for name, leaf in example.items() if name != LEAF}
    push = PUSH * clip_norm * sum(mark[jnp.maximum(own, 0)] for mark in marks.values())
    return jnp.where(own >= 0, push, loss(others, frozen, rest, key))

  return wrapped


def with_marks(trained: Mapping[str, Array], num: int, rule: str) -> dict[str, Array]:
  """Flat parameters with coordinates for canaries: one LEAF, or one for each of them.

  Args:
    trained: flat parameters.
    num: coordinates, as many as canaries or more.
    rule: of clipping; for 'per_layer' there is an entry LEAF/path for each path.
  """
  paths = [f'{LEAF}/{path}' for path in trained] if rule == 'per_layer' else [LEAF]
  return {**trained, **{path: np.zeros(num, np.float32) for path in paths}}


def together(apart: Mapping[str, Array]) -> dict[str, jax.Array]:
  """{path: (...), LEAF/path: (n,)} -> {path: vector of both}, one leaf for clipping."""
  own, marks = _parted(apart)
  return {
    path: jnp.concatenate([jnp.ravel(leaf), marks[f'{LEAF}/{path}']])
    for path, leaf in own.items()
  }


def apart(
  vectors: Mapping[str, Array], shapes: Mapping[str, Shape]
) -> dict[str, Array]:
  """The inverse of `together`, for parameters of these shapes."""
  found = {}
  for path, vector in vectors.items():
    size = math.prod(shapes[path])
    found[path] = vector[:size].reshape(shapes[path])
    found[f'{LEAF}/{path}'] = vector[size:]
  return found


def of_vectors(
  optimizer: optax.GradientTransformation, shapes: Mapping[str, Shape]
) -> optax.GradientTransformation:
  """An optimiser of flat parameters as one of the vectors of `together`."""

  def update(gradient, state, params):
    parts = (apart(vectors, shapes) for vectors in (gradient, params))
    gradient, params = parts
    updates, state = optimizer.update(gradient, state, params)
    return together(updates), state

  return optax.GradientTransformation(
    lambda params: optimizer.init(apart(params, shapes)), update
  )


def read(trained: Mapping[str, Array]) -> np.ndarray:
  """Coordinates (n,) float64 of the canaries: over L leaves, their sum / sqrt(L)."""
  marks = [np.asarray(mark, np.float64) for mark in _parted(trained)[1].values()]
  return np.sum(marks, axis=0) / math.sqrt(len(marks))


def _parted(trained):
  """(parameters, marks) of flat parameters with marks."""
  parts = {}, {}
  for path, leaf in trained.items():
    parts[path == LEAF or path.startswith(f'{LEAF}/')][path] = leaf
  return parts


def appended(
  patients: Mapping[str, np.ndarray], num_canaries: int
) -> dict[str, np.ndarray]:
  """Adds canaries to the examples: copies of the first row, one coordinate each.

  Args:
    patients: {name: (p, ...)}.
    num_canaries: number of rows to add.

  Returns:
    {name: (p + num_canaries, ...)}, with the entry LEAF.
  """
  rows = {
    name: np.concatenate([leaf, np.repeat(leaf[:1], num_canaries, axis=0)])
    for name, leaf in patients.items()
  }
  own = np.full(len(next(iter(rows.values()))), NOBODY, np.int32)
  own[-num_canaries:] = np.arange(num_canaries)
  return {**rows, LEAF: own}


def coins(num_canaries: int, *seed: int) -> np.ndarray:
  """Fair coins (n,) bool: which canaries take part. The seed is not a secret."""
  return np.random.default_rng((*seed, 0xCA)).random(num_canaries) < 0.5


def trace(
  take_step: Callable[[State, int], State],
  state: State,
  num_steps: int,
  read: Callable[[Any], np.ndarray] = read,
) -> tuple[State, np.ndarray]:
  """Runs steps and reads the canaries' parameter after each of them.

  Args:
    take_step: (state, step) -> state. With b bands (b = 1 where noise is independent)
      the participating canaries are among the patients drawn at steps 0, 2b, 4b, ...
      and at no other step. LEAF is updated by gradient descent with learning rate
      expected_batch / clip_norm, with the clip_norm of step 0.
    state: TrainState at step 0 whose `trained` holds LEAF.
    num_steps: 2k b.
    read: trained parameters -> coordinates (n,) float64 of the canaries.

  Returns:
    (state, updates): the last state, and (num_steps, n) float64, the noisy sum in each
    canary's coordinate in units of the clip norm of the step: 1 or 0, plus noise.
  """
  marks, clip_norms = [read(state.trained)], []
  for step in range(num_steps):
    clip_norms.append(1.0 if state.clip_norm is None else float(state.clip_norm))
    state = take_step(state, step)
    marks.append(read(state.trained))
  units = np.array(clip_norms) / clip_norms[0]
  return state, -np.diff(marks, axis=0) / units[:, None]


def turns(
  updates: np.ndarray, strategy: Sequence[float] = INDEPENDENT, steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Removes the correlation of the noise from updates; see the module docstring.

  Args:
    updates: (T, n) from `trace`, the first T steps of a run.
    strategy: coefficients (b,) of the strategy matrix M.
    steps: of the whole run; None for T.

  Returns:
    (by_turn, whitened): (T/b, n), the statistic of each turn of the first group, which
    for a canary that was drawn is 1 + noise of standard deviation sigma; and (T, n), M
    times the updates, with independent noise of standard deviation sigma.

  Raises:
    ValueError: T is not a multiple of b, or exceeds the steps of the run.
  """
  num, bands = len(updates), len(strategy)
  steps = num if steps is None else steps
  if num % bands or steps < num:
    raise ValueError(
      f'expected whole turns of {bands} steps and at most the {steps} steps of the '
      f'run, got {num} updates; pass a multiple of num_bands.'
    )
  # Only the last columns of M are truncated, so its leading block is enough.
  mixing = banded_matrix.matrix(strategy, min(steps, num + bands))[:num, :num]
  whitened = mixing @ updates
  return mixing[:, ::bands].T @ whitened, whitened


def scores(by_turn: np.ndarray) -> dict[str, np.ndarray]:
  """Two statistics of 2k turns (2k, n) that are larger for canaries that took part.

  Returns:
    dict of (n,): 'sum', the mean over the turns that drew the canaries, which is
    optimal for independent noise; 'contrast', that mean minus the mean over the other
    turns, which cancels noise that appears in both.
  """
  drawn, rest = by_turn[::2].mean(axis=0), by_turn[1::2].mean(axis=0)
  return {'sum': drawn, 'contrast': drawn - rest}


def report(
  updates: Array,
  included: Array,
  noise_multiplier: float,
  delta: float,
  confidence: float = 0.95,
  strategy: Sequence[float] = INDEPENDENT,
  steps: int | None = None,
) -> dict[str, Any]:
  """What the canaries show about a mechanism with a claimed noise multiplier.

  Args:
    updates: (2k b, n) from `trace`. Coordinates beyond the canaries, to which nobody
      contributes, may follow; they make the estimate of the noise more precise.
    included: (m,) bool, coins of the first m <= n coordinates.
    noise_multiplier: the claimed sigma.
    delta: of the claim.
    confidence: probability that all bounds below hold at once.
    strategy, steps: of the noise and of the whole run, as in `turns`.

  Returns:
    dict
      epsilon_claimed: for k participations known to the attacker, at the claimed sigma.
      epsilon_low: the largest bound; if above the claim, the mechanism is broken.
      one_run: bound of [Steinke23], without assumption about the noise.
      gaussian: bound for independent Gaussian noise [Nasr23], much tighter.
      noise: measured standard deviation over clip_norm, with its interval low, high.
      canaries, included, participations, delta, confidence.
  """
  included = np.asarray(included, bool)
  by_turn, whitened = turns(np.asarray(updates), strategy, steps)
  num_canaries, times = included.size, len(by_turn) // 2
  found = scores(by_turn)
  # Split the error over four bounds and the interval of the noise.
  each = 1 - (1 - confidence) / (2 * len(found) + 1)
  outside = np.append(~included, np.ones(whitened.shape[1] - num_canaries, bool))
  one_run, gaussian = [], []
  for values in found.values():
    coined = values[:num_canaries]
    one_run.append(
      epsilon_lower_bounds.epsilon_from_coins(coined, included, delta, each)
    )
    gaussian.append(
      epsilon_lower_bounds.epsilon_from_gaussian_scores(
        coined[included], values[outside], delta, each
      )
    )
  claimed = accounting.epsilon(
    [accounting.gaussian_event(noise_multiplier, times)], delta
  )
  bounds = {'one_run': max(one_run), 'gaussian': max(gaussian)}
  return {
    'epsilon_claimed': accounting.claim(claimed),
    'epsilon_low': max(bounds.values()),
    **bounds,
    'noise': epsilon_lower_bounds.deviation(whitened[:, outside], each),
    'canaries': num_canaries,
    'included': int(included.sum()),
    'participations': times,
    'delta': delta,
    'confidence': confidence,
  }
