"""Editors: source latents and changed attributes -> counterfactual latents, by name.

An editor is compiled: `edit(params, z, attributes, new_attributes, keep=None) -> z_cf`,
z, z_cf (b, ..., c) in the autoencoder's units; attributes (b, k); keep (b, ..., 1) bool
at latent resolution, true where the source's trajectory is kept. It is made from a
`Setting` and options of its own, those of `counterfactual.<name>` in the config.
[Song21] arXiv 2010.02502, [Huberman24] arXiv 2304.06140, [Meng22] SDEdit, arXiv
2108.01073; [Parmar23] in `pix2pix_zero`, [Brooks23] in `instruct_pix2pix`.
"""

from collections.abc import Callable
from typing import Any

from ldm_jax.synthesis.editors import instruct_pix2pix, inversion, pix2pix_zero
from ldm_jax.synthesis.editors.setting import Setting

# Name -> maker(setting, **options) -> editor; the names of `counterfactual.editor`.
EDITORS: dict[str, Callable[..., Callable]] = {
  'ddim': inversion.ddim,
  'ddpm': inversion.ddpm,
  'pairs': instruct_pix2pix.instruct_pix2pix,
  'pix2pix_zero': pix2pix_zero.pix2pix_zero,
  'sdedit': inversion.sdedit,
}


def make(name: str, setting: Setting, **options: Any) -> Callable:
  """Returns the editor that `counterfactual.editor` names.

  Raises:
    ValueError: an unknown name, or an option that the editor refuses.
  """
  if name not in EDITORS:
    raise ValueError(
      f'counterfactual.editor is {name!r}, but must be one of {", ".join(EDITORS)}.'
    )
  return EDITORS[name](setting, **options)
