"""Layouts: how a data set lies on disk -> Cohort.

A layout is a module with `read(root, schema=None, **options) -> Cohort`; one with known
population statistics also has `population(num, seed, /, **options) -> list of dicts`,
one whose true counterfactuals can be had has KNOWN_COUNTERFACTUALS = True.
"""

from ldm_jax.data.layouts import (
  decathlon,
  folder,
  phantom_brain,
  phantom_cardiac,
  phantom_chest,
  scd,
)

LAYOUTS = {
  'decathlon': decathlon,
  'folder': folder,
  'phantom_brain': phantom_brain,
  'phantom_cardiac': phantom_cardiac,
  'phantom_chest': phantom_chest,
  'scd': scd,
}
