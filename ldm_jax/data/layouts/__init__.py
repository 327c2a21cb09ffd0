"""Layouts: how a data set lies on disk -> Cohort.

A layout is a module with `read(root, schema=None, **options) -> Cohort` and an ABOUT
(`data/about.py`: citation, licence), which makes it a builder of `data/builders.py`;
one with known population statistics also has `population(num, seed, /, **options) ->
list of dicts`, one whose true counterfactuals can be had has KNOWN_COUNTERFACTUALS =
True.
"""

from ldm_jax.data.layouts import (
  acdc,
  adni,
  bids,
  chexpert,
  decathlon,
  folder,
  ixi,
  mnms,
  mnms2,
  oasis,
  phantom_brain,
  phantom_cardiac,
  phantom_chest,
  scd,
  scd_dicom,
  tfds,
  ukbb,
)

LAYOUTS = {
  'acdc': acdc,
  'adni': adni,
  'bids': bids,
  'chexpert': chexpert,
  'decathlon': decathlon,
  'folder': folder,
  'ixi': ixi,
  'mnms': mnms,
  'mnms2': mnms2,
  'oasis': oasis,
  'phantom_brain': phantom_brain,
  'phantom_cardiac': phantom_cardiac,
  'phantom_chest': phantom_chest,
  'scd': scd,
  'scd_dicom': scd_dicom,
  'tfds': tfds,
  'ukbb': ukbb,
}
