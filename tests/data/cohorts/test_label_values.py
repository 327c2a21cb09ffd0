"""Laws of labels: one meaning, whatever the data set; no value passes unknown."""

import numpy as np
import pytest

from ldm_jax.data.cohorts import label_values
from ldm_jax.data.cohorts.cohort import FileSource
from ldm_jax.data.phantom.cardiac import cohort as cardiac


def test_the_common_codes_are_those_of_the_phantom():
  assert tuple(label_values.HEART) == cardiac.LABELS
  assert tuple(label_values.HEART.values()) == (0, 1, 2, 3)


def test_acdc_and_mnms_number_the_same_heart_in_opposite_ways():
  acdc, mnms = np.array([[0, 3, 2, 1]], np.uint8), np.array([[0, 1, 2, 3]], np.uint8)
  common = [
    label_values.HEART[part] for part in ('background', 'lv', 'myocardium', 'rv')
  ]
  for own, codes in ((acdc, label_values.ACDC), (mnms, label_values.MNMS)):
    found = label_values.translate(own, codes, 'x')
    assert found.tolist() == [common] and found.dtype == np.uint8


def test_without_a_mapping_all_values_stay():
  own = np.array([0, 7, 255], np.uint8)
  assert label_values.translate(own, (), 'x') is own


def test_a_value_without_a_meaning_is_an_error_that_names_it():
  with pytest.raises(ValueError, match=r'seg.nii holds the labels \[4, 200\].*0, 1, 2'):
    label_values.translate(
      np.array([0, 1, 4, 200], np.uint8), label_values.ACDC, 'seg.nii'
    )


def test_a_source_translates_as_it_reads_and_its_fingerprint_knows(
  tmp_path, save_nifti
):
  image = str(save_nifti(tmp_path / 'a.nii'))
  own = np.random.default_rng(0).integers(0, 4, (6, 5, 4)).astype(np.uint8)
  label = str(save_nifti(tmp_path / 'a_gt.nii', own))
  plain, mapped = (
    FileSource(image, label),
    FileSource(image, label, codes=label_values.ACDC),
  )
  before, after = plain.read()[1].array, mapped.read()[1].array
  assert (np.array([0, 3, 2, 1])[before] == after).all()
  assert plain.fingerprint() != mapped.fingerprint()
