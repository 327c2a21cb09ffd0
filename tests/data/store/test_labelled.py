"""Laws of scans with label maps as channels."""

import numpy as np
import pytest

from ldm_jax.data.cohorts import label_values, roles
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import labelled, store


def prepared(make_cohort, tmp_path, **options):
  cohort = make_cohort(**options)
  store.prepare(tmp_path / 'store', cohort, Spec((4, 5, 6)))
  return store.open_split(tmp_path / 'store', cohort.name)


def test_the_channels_are_the_scan_and_the_classes_of_its_label_map(
  make_cohort, tmp_path
):
  split, rows = prepared(make_cohort, tmp_path), np.array([4, 1])
  found = labelled.inputs(split, rows, (0, 2))
  assert found.shape == (2, *split.shape, 3) and found.dtype == np.float32
  assert np.array_equal(found[..., :1], split.volumes(rows))
  assert np.array_equal(found[..., 2] == 1, split.labels(rows) == 2)
  assert (found[..., 1:].sum(-1) == 1).all(), 'a value that is not listed is class 0'
  assert np.array_equal(labelled.inputs(split, rows, ()), split.volumes(rows))
  shares = labelled.frequencies(split, (0, 1, 2))
  np.testing.assert_allclose(shares, np.ones(3) / 3)


def test_scans_without_labels_are_refused_and_private_ones_not_named(
  make_cohort, tmp_path
):
  split = prepared(make_cohort, tmp_path, label=False)
  for ask in (
    lambda: labelled.check(split),
    lambda: labelled.inputs(split, [0], (0, 1)),
    lambda: labelled.frequencies(split, (0, 1)),
  ):
    with pytest.raises(ValueError, match=r"data\.labels=''.*0_ED"):
      ask()
  private = prepared(make_cohort, tmp_path, label=False, name='private', first=7)
  with pytest.raises(roles.ConfidentialError, match='6 of the 6 scans') as error:
    labelled.check(private)
  assert '7_ED' not in str(error.value) and '7_ED' in str(error.value.details)


def test_shares_of_a_coarser_grid_add_up_and_keep_the_volume_of_every_class():
  classes = np.random.default_rng(0).integers(0, 3, (2, 4, 6, 8))
  found = labelled.shares(classes, 3, (2, 3, 2))
  assert found.shape == (2, 2, 3, 2, 3)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
  counted = (classes[..., None] == np.arange(3)).mean((1, 2, 3))
  np.testing.assert_allclose(found.mean((1, 2, 3)), counted, rtol=1e-5)
  block = classes[0, :2, :2, :4]
  np.testing.assert_allclose(found[0, 0, 0, 0, 2], (block == 2).mean(), rtol=1e-6)


def test_classes_and_values_are_each_other_s_inverse_and_have_names():
  labels = np.array([[0, 7], [3, 9]], np.uint8)
  classes = label_values.classes_of(labels, (0, 3, 7))
  assert classes.tolist() == [[0, 2], [1, 0]]
  assert label_values.values_of(classes, (0, 3, 7)).tolist() == [[0, 7], [3, 0]]
  assert label_values.one_hot(classes, 3).argmax(-1).tolist() == classes.tolist()
  assert label_values.named((0, 3), ()) == {0: 'background', 3: 'label 3'}
  assert label_values.named((0, 3), ('air', 'bone')) == {0: 'air', 3: 'bone'}
