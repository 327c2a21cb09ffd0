"""Layouts: how a data set lies on disk -> Cohort.

A layout is a module with `read(root, schema=None, **options) -> Cohort`; one with known
population statistics also has `population(num, seed, /, **options) -> list of dicts`.
"""

from ldm_jax.data.layouts import (
  adni,
  decathlon,
  folder,
  phantom_cardiac,
  scd,
  scd_dicom,
  ukbb,
)

LAYOUTS = {
  'adni': adni,
  'decathlon': decathlon,
  'folder': folder,
  'phantom_cardiac': phantom_cardiac,
  'scd': scd,
  'scd_dicom': scd_dicom,
  'ukbb': ukbb,
}
