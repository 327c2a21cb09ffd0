"""Laws of prepared cohorts: entries come out as preprocessing made them."""

import numpy as np
import pytest

from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import store

SPEC = Spec((6, 6, 6))


def test_a_split_returns_what_preprocessing_made(tmp_path, make_cohort):
  cohort = make_cohort()
  store.prepare(tmp_path / 's', cohort, SPEC)
  split = store.open_split(tmp_path / 's', 'public', cohort.schema)
  assert len(split) == 6 and split.num_patients == 3
  assert split.patients == ['0', '0', '1', '1', '2', '2']
  assert [e.tolist() for e in split.patient_entries] == [[0, 1], [2, 3], [4, 5]]
  np.testing.assert_allclose(split.attributes[2:, 0], [-0.8, -0.8, -0.6, -0.6], 1e-5)
  assert np.isnan(split.attributes[:2]).all()
  order = np.array([4, 0, 4])
  volumes, masks, labels = (
    f(order) for f in (split.volumes, split.masks, split.labels)
  )
  for row, index in enumerate(order):
    truth = preprocess.apply(SPEC, *cohort.records[index].source.read())
    assert np.array_equal(volumes[row, ..., 0], truth.array)
    assert np.array_equal(masks[row], truth.mask)
    assert np.array_equal(labels[row], truth.label)
    assert split.record(index) == truth.record
    np.testing.assert_array_equal(split.affine(index), truth.affine)
  assert (
    volumes.dtype == np.float32 and masks.dtype == bool and labels.dtype == np.uint8
  )
  assert split.volumes([]).shape == (0, 6, 6, 6, 1)


def test_a_split_without_labels_returns_none(tmp_path, make_cohort):
  store.prepare(tmp_path / 's', make_cohort(label=False), SPEC)
  assert store.open_split(tmp_path / 's', 'public').labels([0]) is None


def test_the_digest_follows_scans_and_attributes(tmp_path, make_cohort):
  digests = set()
  for num in (2, 3, 3):
    store.prepare(tmp_path, make_cohort(num=num), SPEC)
    digests.add(store.open_split(tmp_path, 'public').digest())
  assert len(digests) == 2


def test_a_volume_is_a_window_on_the_file_and_cannot_be_written_to(
  tmp_path, make_cohort
):
  store.prepare(tmp_path / 's', make_cohort(), SPEC)
  split = store.open_split(tmp_path / 's', 'public')
  found = split.volume(3)
  assert np.array_equal(found, split.volumes([3])[0, ..., 0])
  with pytest.raises(ValueError, match='read-only'):
    found[0] = 1


def test_a_model_is_not_given_volumes_of_another_preprocessing(tmp_path, make_cohort):
  store.prepare(tmp_path / 's', make_cohort(), SPEC)
  split = store.open_split(tmp_path / 's', 'public')
  split.check_spec(SPEC.to_config())
  with pytest.raises(ValueError, match='centre differ'):
    split.check_spec(Spec((6, 6, 6), centre='mass').to_config())
