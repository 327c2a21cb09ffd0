"""Layouts: the files and tables of a data set -> Cohort.

A layout is a module with `read(root, schema=None, **options) -> Cohort` and an ABOUT
(`data/layouts/shared/about.py`: citation, licence), which makes it a builder of
`data/tfds_builders.py`. A layout with known population statistics also has
`population(num, seed, /, **options) -> list of dicts`, one whose true counterfactuals
can be rendered has KNOWN_COUNTERFACTUALS = True.
"""

from typing import Any

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
  phantoms,
  scd,
  scd_dicom,
  tfds,
  ukbb,
)

# Modules, and phantoms that have the same functions.
LAYOUTS: dict[str, Any] = {
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
  'phantom_brain': phantoms.BRAIN,
  'phantom_cardiac': phantoms.CARDIAC,
  'phantom_chest': phantoms.CHEST,
  'scd': scd,
  'scd_dicom': scd_dicom,
  'tfds': tfds,
  'ukbb': ukbb,
}
