"""Laws of scans that are rendered when they are read."""

import dataclasses

import numpy as np

from ldm_jax.data.phantom import source
from ldm_jax.data.phantom.chest import cohort


def test_labels_are_the_largest_fraction_and_volumes_the_sum_of_each():
  fractions = np.array([0.2, 0.7, 0.1], np.float32).reshape(3, 1, 1, 1)
  image = np.zeros((1, 1, 1), np.float32)
  found = source.rendering(image, fractions, ('air', 'a', 'b'), 2.0, np.eye(4))
  assert found.labels.item() == 1 and found.labels.dtype == np.uint8
  np.testing.assert_allclose(list(found.volumes_ml.values()), [1.4, 0.2], rtol=1e-6)
  projection = source.rendering(image, fractions, ('air', 'a', 'b'), None, np.eye(4))
  assert projection.volumes_ml == {}


def test_the_fingerprint_tells_scans_apart_without_rendering():
  scan = cohort.cohort('c', 1).records[0].source
  others = [dataclasses.replace(scan, **{k: 9}) for k in ('seed', 'index')]
  others.append(scan.counterfactual({'effusion': 0.31}))
  assert len({s.fingerprint() for s in (scan, *others)}) == 4
  assert scan.counterfactual({}).fingerprint() == scan.fingerprint()
