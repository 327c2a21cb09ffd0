"""Laws of the patients' arrays: everyone's volumes in their rows, draws by name."""

import types

import numpy as np

from ldm_jax.training import patients


def test_a_patients_number_follows_from_the_name_alone():
  found = patients.numbers(['a', 'b', 'c'])
  np.testing.assert_array_equal(patients.numbers(['c', 'a']), found[[2, 0]])
  many = patients.numbers(range(2000))
  assert many.dtype == np.uint32 and len(set(many.tolist())) == 2000


def split_of(groups, num_attributes=2):
  count = sum(map(len, groups))
  return types.SimpleNamespace(
    patient_entries=[np.asarray(group) for group in groups],
    attributes=np.arange(count * num_attributes, dtype=np.float32).reshape(count, -1),
  )


def test_every_volume_stands_with_its_patient_and_the_rest_is_absent():
  latents = np.arange(5.0).reshape(5, 1, 1) + np.ones((5, 2, 3))
  split = split_of([(0, 3), (1,), (4, 2)])
  found = patients.patient_arrays(split, latents)
  assert found['z'].shape == (3, 2, 2, 3)
  np.testing.assert_array_equal(found['present'], [[1, 1], [1, 0], [1, 1]])
  np.testing.assert_array_equal(found['z'][2], latents[[4, 2]])
  np.testing.assert_array_equal(found['attributes'][0], split.attributes[[0, 3]])
  assert not found['z'][1, 1].any()
  assert np.isnan(found['attributes'][1, 1]).all()
  wider = np.arange(20.0).reshape(5, 4)
  found = patients.patient_arrays(split, latents, wider)
  np.testing.assert_array_equal(found['attributes'][2], wider[[4, 2]])


def test_all_versions_of_a_volume_stand_with_its_patient():
  """Three versions of five volumes: 3 n latents, n conditions."""
  split = split_of([(0, 3), (1,), (4, 2)])
  latents = np.arange(15.0).reshape(15, 1, 1)
  found = patients.patient_arrays(split, latents)
  assert found['z'].shape == (3, 6, 1, 1)
  np.testing.assert_array_equal(found['z'][0].ravel(), [0, 3, 5, 8, 10, 13])
  np.testing.assert_array_equal(found['z'][1].ravel()[:3], [1, 6, 11])
  np.testing.assert_array_equal(found['present'].sum(1), [6, 3, 6])
  own = split.attributes[[4, 2]]
  np.testing.assert_array_equal(found['attributes'][2], np.tile(own, (3, 1)))
