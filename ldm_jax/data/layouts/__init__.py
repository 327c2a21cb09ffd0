"""Layouts: how a data set lies on disk -> Cohort.

A layout is a module with `read(root, schema=None, **options) -> Cohort` and an ABOUT
(`data/about.py`: citation, licence), which makes it a builder of `data/builders.py`;
one with known population statistics also has `population(num, seed, /, **options) ->
list of dicts`.
"""

from ldm_jax.data.layouts import decathlon, folder, phantom_cardiac, scd, tfds

LAYOUTS = {
  'decathlon': decathlon,
  'folder': folder,
  'phantom_cardiac': phantom_cardiac,
  'scd': scd,
  'tfds': tfds,
}
