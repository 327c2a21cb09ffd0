"""Canaries: made-up patients whose trace in every update is known beforehand.

A gradient canary owns one coordinate of an extra parameter, pushes it with the largest
gradient that clipping lets through, and touches nothing else. So its whole influence
on a step is one number, which the attacker reads from the update: the worst patient
that the guarantee must cover, and the sharpest test of clipping and noise together. A
fair coin decides for each canary whether it takes part [Steinke23]; the attacker sees
every update (white box) and knows the steps at which those that take part are drawn, so
sampling protects nobody here and the claim to hold is that of full participation.

`with_canaries` puts them into any loss of one patient, so that they run through the
very step that trains: gradient, clipping, sum over devices, noise, division.

Banded noise. Who knows the strategy M, which privacy.json prints, multiplies the
updates by it: M (F + sigma C_clip M^{-1} Z) = M F + sigma C_clip Z has independent
noise again. A canary of the first group, drawn at step t = 0, b, 2b, ... with norm
C_clip, enters the rows t ... t + b - 1 by column t of M, which has norm 1 and shares no
row with the columns of its group's other turns [Choquette23]. Its best statistic is
therefore the product of that column with those rows: 1 + N(0, sigma^2), independent
from turn to turn, as if each turn were a step with independent noise. `turns` computes
it, and the claim is that of as many steps.

Adaptive clipping. The clip norm of a step is a function of earlier releases, hence in
the attacker's view; contribution and noise are in units of it, and so are the updates
that `trace` returns. The bit has BIT_SHARE of a canary's norm, its coordinate the rest.

[Choquette23] Choquette-Choo et al., (Amplified) Banded Matrix Factorization, NeurIPS
  2023, arXiv:2306.08153 (the sensitivity; proof in schemes.Banded).
[Steinke23] Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run, 2023.
[Nasr23] Nasr et al., Tight Auditing of DP-SGD, USENIX 2023 (canary gradients).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import accounting, audit, clipping, gaussian_audit, strategies
from ldm_jax.types import Array

if TYPE_CHECKING:
  from ldm_jax.training.state import TrainState

LEAF = 'canary'  # path of the extra parameter, and the examples' entry with the owner
NOBODY = -1
# Gradient of a canary over the first clip norm: above any that an adaptive one reaches.
PUSH = 10 * clipping.RANGE
INDEPENDENT = (1.0,)  # the strategy of noise that is drawn anew in each step


def with_canaries(
  loss: Callable[..., jax.Array], clip_norm: float
) -> Callable[..., jax.Array]:
  """Wraps the loss of one patient so that marked examples are canaries.

  Args:
    loss: (trained, frozen, example, key) -> ().
    clip_norm: C of the step under audit; the first, where it is adaptive.

  Returns:
    The same kind of function. `trained` has the extra entry LEAF (n,), `example` the
    extra entry LEAF (), the canary's number or NOBODY.
  """

  def wrapped(trained, frozen, example, key):
    marks, own = trained[LEAF], example[LEAF]
    others = {path: leaf for path, leaf in trained.items() if path != LEAF}
    rest = {name: leaf for name, leaf in example.items() if name != LEAF}
    push = PUSH * clip_norm * marks[jnp.maximum(own, 0)]
    return jnp.where(own >= 0, push, loss(others, frozen, rest, key))

  return wrapped


def appended(
  patients: Mapping[str, np.ndarray], num_canaries: int
) -> dict[str, np.ndarray]:
  """Adds canaries to examples: rows like the first patient's, and whose coordinate.

  Args:
    patients: {name: (p, ...)}.

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
  """Fair coins, (n,) bool: who takes part. The seed is the audit's, not a secret."""
  return np.random.default_rng((*seed, 0xCA)).random(num_canaries) < 0.5


def trace(
  take_step: Callable[[TrainState, int], TrainState], state: TrainState, num_steps: int
) -> tuple[TrainState, np.ndarray]:
  """Runs steps and reads the canaries' parameter after each.

  Args:
    take_step: (state, step) -> state. With b bands (one where noise is independent)
      the canaries that take part are among the patients drawn at steps 0, 2b, 4b, ...
      and at no other. LEAF is moved by gradient descent of rate expected_batch / C,
      with C of step 0.
    state: TrainState whose `trained` holds LEAF; at step 0.
    num_steps: 2k b.

  Returns:
    (state, updates): the last state, and (num_steps, n) float64, the private sum that
    each canary's coordinate was given in units of its step's C: 1 or 0, plus noise.
  """
  marks, clip_norms = [np.asarray(state.trained[LEAF], np.float64)], []
  for step in range(num_steps):
    clip_norms.append(1.0 if state.clip_norm is None else float(state.clip_norm))
    state = take_step(state, step)
    marks.append(np.asarray(state.trained[LEAF], np.float64))
  units = np.array(clip_norms) / clip_norms[0]
  return state, -np.diff(marks, axis=0) / units[:, None]


def turns(
  updates: np.ndarray, strategy: Sequence[float] = INDEPENDENT, steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Takes the correlation out of updates, as an attacker does; see the module.

  Args:
    updates: (T, n) of `trace`, the first T steps of a run.
    strategy: coefficients (b,) of its noise.
    steps: of the whole run, T unless given.

  Returns:
    (T/b, n) the statistic of each turn of the first group, 1 + noise of deviation sigma
    for a canary that was drawn; and (T, n) the updates times M, with independent noise
    of deviation sigma where nobody pushes.

  Raises:
    ValueError: steps that are no multiple of the bands, or too few.
  """
  num, bands = len(updates), len(strategy)
  steps = num if steps is None else steps
  if num % bands or steps < num:
    raise ValueError(
      f'{num} updates of a run of {steps} steps came, with {bands} bands; required are '
      'whole turns, no more steps than the run has.'
    )
  # Only the last columns of the whole run are cut short: a corner of M is enough.
  mixing = strategies.matrix(strategy, min(steps, num + bands))[:num, :num]
  whitened = mixing @ updates
  return mixing[:, ::bands].T @ whitened, whitened


def scores(by_turn: np.ndarray) -> dict[str, np.ndarray]:
  """Two statistics of 2k turns (2k, n) for which a canary that took part scores higher.

  Returns:
    dict of (n,): 'sum', the mean over the turns that drew the canaries, the best there
    is against independent noise; 'contrast', less the mean over the other turns, which
    removes noise that comes back at another one.
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
  """What the canaries prove about a mechanism that claims `noise_multiplier`.

  Args:
    updates: (2k b, n) of `trace`. Coordinates beyond the canaries, which nobody pushes,
      may follow; they make the measured noise sharper.
    included: (m,) bool, coins of the first m <= n coordinates.
    noise_multiplier: sigma that is claimed.
    delta: of the claim.
    confidence: chance that all bounds below are true at once.
    strategy, steps: of the noise and of the whole run, as `turns`.

  Returns:
    dict
      epsilon_claimed: of k participations, known to the attacker, at sigma.
      epsilon_low: largest of the bounds; above the claim, the mechanism is broken.
      one_run: bound of [Steinke23], which assumes nothing about the noise.
      gaussian: bound that assumes independent Gaussian noise [Nasr23], much sharper.
      noise: measured deviation over C, with its interval low, high.
      canaries, included, participations, delta, confidence.
  """
  included = np.asarray(included, bool)
  by_turn, whitened = turns(np.asarray(updates), strategy, steps)
  num_canaries, times = included.size, len(by_turn) // 2
  found = scores(by_turn)
  # One share of the error for each of four bounds and for the noise's interval.
  each = 1 - (1 - confidence) / (2 * len(found) + 1)
  outside = np.append(~included, np.ones(whitened.shape[1] - num_canaries, bool))
  one_run, gaussian = [], []
  for values in found.values():
    coined = values[:num_canaries]
    one_run.append(audit.epsilon_from_coins(coined, included, delta, each))
    gaussian.append(
      gaussian_audit.epsilon_from_gaussian_scores(
        coined[included], values[outside], delta, each
      )
    )
  claimed = accounting.epsilon(
    [accounting.gaussian_event(noise_multiplier, times)], delta
  )
  bounds = {'one_run': max(one_run), 'gaussian': max(gaussian)}
  return {
    'epsilon_claimed': claimed['pld'],
    'epsilon_low': max(bounds.values()),
    **bounds,
    'noise': gaussian_audit.deviation(whitened[:, outside], each),
    'canaries': num_canaries,
    'included': int(included.sum()),
    'participations': times,
    'delta': delta,
    'confidence': confidence,
  }
