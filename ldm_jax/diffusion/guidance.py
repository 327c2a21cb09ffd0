"""Classifier-free guidance: amplifies the effect of the condition.

[Ho22] arXiv 2207.12598, [Brooks23] InstructPix2Pix, arXiv 2211.09800, written so that
scale 1 is the conditional model exactly. Guidance is an affine combination, so it is
the same formula for noise, v and clean-latent outputs.
"""

import jax

from ldm_jax.diffusion.process import Denoiser
from ldm_jax.types import Array


def guide(conditional: Array, unconditional: Array, scale: Array) -> jax.Array:
  """Returns null + scale (conditional - null) for outputs (b, ..., c). [Ho22] Eq. 6.

  Scale 0 is unconditional, 1 conditional (bit for bit), above 1 amplifies the
  condition.
  """
  return conditional + (scale - 1) * (conditional - unconditional)


def guide_twice(
  nothing: Array, source: Array, both: Array, source_scale: Array, scale: Array
) -> jax.Array:
  """Guidance by a source image and by a condition on its change. [Brooks23] Eq. 3

  nothing + source_scale (source - nothing) + scale (both - source), written so that
  scales of 1 are the conditional model exactly.

  Args:
    nothing, source, both: outputs (b, ..., c) given neither, given the source, and
      given the source and the condition.
    source_scale, scale: of the source and of the condition.
  """
  return both + (scale - 1) * (both - source) + (source_scale - 1) * (source - nothing)


def guided(
  denoise_conditional: Denoiser, denoise_null: Denoiser, scale: Array
) -> Denoiser:
  """Combines two denoisers (z_t, t) -> output; a static scale of 1 calls only one."""
  if isinstance(scale, int | float) and scale == 1:
    return denoise_conditional

  def denoise(z_t, t):
    return guide(denoise_conditional(z_t, t), denoise_null(z_t, t), scale)

  return denoise
