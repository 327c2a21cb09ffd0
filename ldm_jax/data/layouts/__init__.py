"""Layouts: how a data set lies on disk -> Cohort.

A layout is a module with `read(root, schema=None, **options) -> Cohort`; one with known
population statistics also has `population(num, seed, /, **options) -> list of dicts`.
"""

from ldm_jax.data.layouts import (
  acdc,
  bids,
  chexpert,
  decathlon,
  folder,
  ixi,
  mnms,
  mnms2,
  oasis,
  phantom_cardiac,
  scd,
)

LAYOUTS = {
  'acdc': acdc,
  'bids': bids,
  'chexpert': chexpert,
  'decathlon': decathlon,
  'folder': folder,
  'ixi': ixi,
  'mnms': mnms,
  'mnms2': mnms2,
  'oasis': oasis,
  'phantom_cardiac': phantom_cardiac,
  'scd': scd,
}
