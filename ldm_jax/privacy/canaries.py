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

[Steinke23] Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run, 2023.
[Nasr23] Nasr et al., Tight Auditing of DP-SGD, USENIX 2023 (canary gradients).
"""

import jax.numpy as jnp
import numpy as np

from ldm_jax.privacy import accounting, audit, gaussian_audit

LEAF = 'canary'  # path of the extra parameter, and the examples' entry with the owner
NOBODY = -1
PUSH = 1e3  # gradient of a canary over the clip norm: far above, so it is clipped to it


def with_canaries(loss, clip_norm):
  """Wraps the loss of one patient so that marked examples are canaries.

  Args:
    loss: (trained, frozen, example, key) -> ().
    clip_norm: C of the step under audit.

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


def coins(num_canaries, *seed):
  """Fair coins, (n,) bool: who takes part. The seed is the audit's, not a secret."""
  return np.random.default_rng((*seed, 0xCA)).random(num_canaries) < 0.5


def trace(take_step, state, num_steps):
  """Runs steps and reads the canaries' parameter after each.

  Args:
    take_step: (state, step) -> state; at even steps the canaries that take part are
      among the patients drawn, at odd steps they are not. LEAF is moved by gradient
      descent of rate expected_batch / C.
    state: TrainState whose `trained` holds LEAF.
    num_steps: 2k.

  Returns:
    (state, updates): the last state, and (num_steps, n) float64, the private sum that
    each canary's coordinate was given in units of C: 1 or 0, plus noise of deviation
    sigma.
  """
  marks = [np.asarray(state.trained[LEAF], np.float64)]
  for step in range(num_steps):
    state = take_step(state, step)
    marks.append(np.asarray(state.trained[LEAF], np.float64))
  return state, -np.diff(marks, axis=0)


def scores(updates):
  """Two statistics of (2k, n) updates for which a canary that took part scores higher.

  Returns:
    dict of (n,): 'sum', the mean over the steps that drew the canaries, the best there
    is against independent noise; 'contrast', less the mean over the other steps, which
    removes noise that comes back at another step.
  """
  drawn, rest = updates[::2].mean(axis=0), updates[1::2].mean(axis=0)
  return {'sum': drawn, 'contrast': drawn - rest}


def report(updates, included, noise_multiplier, delta, confidence=0.95):
  """What the canaries prove about a mechanism that claims `noise_multiplier`.

  Args:
    updates: (2k, n) of `trace`. Coordinates beyond the canaries, which nobody pushes,
      may follow; they make the measured noise sharper.
    included: (m,) bool, coins of the first m <= n coordinates.
    noise_multiplier: sigma that is claimed.
    delta: of the claim.
    confidence: chance that all bounds below are true at once.

  Returns:
    dict
      epsilon_claimed: of k steps with full participation at sigma.
      epsilon_low: largest of the bounds; above the claim, the mechanism is broken.
      one_run: bound of [Steinke23], which assumes nothing about the noise.
      gaussian: bound that assumes independent Gaussian noise [Nasr23], much sharper.
      noise: measured deviation over C, with its interval low, high.
      canaries, included, participations, delta, confidence.
  """
  updates, included = np.asarray(updates), np.asarray(included, bool)
  num_canaries, times = included.size, len(updates) // 2
  found = scores(updates)
  # One share of the error for each of four bounds and for the noise's interval.
  each = 1 - (1 - confidence) / (2 * len(found) + 1)
  outside = np.append(~included, np.ones(updates.shape[1] - num_canaries, bool))
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
    'noise': gaussian_audit.deviation(updates[:, outside], each),
    'canaries': num_canaries,
    'included': int(included.sum()),
    'participations': times,
    'delta': delta,
    'confidence': confidence,
  }
