"""Updates of a codebook: moving averages or a gradient, and revival of dead codes.

[Oord17] 1711.00937, Appendix A.1: averages. [Zeghidour21] SoundStream, 2107.03312,
Sec. III.C: rarely used codes are replaced by encoder outputs.
"""

import jax.numpy as jnp
import numpy as np
import optax

from ldm_jax.types import Array

PREFIX = 'quantizer/'
LEARNED_BY = ('averages', 'gradient')


def optimizer(
  learner: optax.GradientTransformation | None, decay: float, revive_below: float
) -> optax.GradientTransformation:
  """Optax transformation for the parameters of
  `models.autoencoders.quantizer.Quantizer`.

  Their gradients are statistics, see `Quantizer.losses`: with m and n the moving
  averages of the sum and the number of a code's voxels, the code is m / n. [Oord17] Eq.
  6 to 8

  Args:
    learner: optax transformation of the codebook, or None for moving averages.
    decay: of the averages.
    revive_below: a code whose average usage is below this share of the uniform usage is
      replaced by an encoder output of the step.
  """
  book, usage, candidates = (
    PREFIX + name for name in ('codebook', 'usage', 'candidates')
  )

  def init(params):
    return learner.init({book: params[book]}) if learner else ()

  def update(gradient, state, params):
    before, old = params[usage], params[book]
    now = decay * before + (1 - decay) * gradient[usage]
    if learner:
      moved, state = learner.update({book: gradient[book]}, state, {book: old})
      codes = old + moved[book]
    else:
      sums = decay * before[:, None] * old + (1 - decay) * gradient[book]
      codes = sums / jnp.maximum(now, 1e-12)[:, None]
    uniform = 1 / len(now)
    dead = now < revive_below * uniform
    codes = jnp.where(dead[:, None], gradient[candidates], codes)
    now = jnp.where(dead, uniform, now)
    new = {book: codes, usage: now, candidates: gradient[candidates]}
    return {name: new[name] - params[name] for name in params}, state

  return optax.GradientTransformation(init, update)


def picks(num_examples: int, num_codes: int, *draw: int) -> np.ndarray:
  """Chooses for every code the example of a global batch that offers a replacement.

  Args:
    num_examples, num_codes: sizes of the batch and the codebook.
    *draw: seed of the choice.

  Returns:
    (num_examples, num_codes) float32: num_examples once in each column, else 0, so that
    the mean over the batch is the chosen candidate.
  """
  chosen = np.random.default_rng(draw).integers(num_examples, size=num_codes)
  return np.float32(num_examples) * np.eye(num_examples, dtype=np.float32)[:, chosen]


def usage_statistics(indices: Array, num_codes: int) -> dict[str, float]:
  """Of code indices (n,...): dict of codes, used (both numbers) and perplexity."""
  counts = np.bincount(np.asarray(indices).ravel(), minlength=num_codes)
  shares = counts[counts > 0] / counts.sum()
  return {
    'codes': num_codes,
    'used': int((counts > 0).sum()),
    'perplexity': float(np.exp(-(shares * np.log(shares)).sum())),
  }
