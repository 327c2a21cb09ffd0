"""Laws of intensity jumps: found where they are, evened out on request, taken back."""

import numpy as np
import pytest

from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.preprocessing import preprocess, slice_gains
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers import volume

AFFINE = np.array([[0, 0, 2.0, 0], [0, 2, 0, 0], [8, 0, 0, 0], [0, 0, 0, 1]])
FACTORS = np.array([1, 1.8, 1, 1, 0.6, 1, 1.4, 1, 1])


def stack(factors=1.0, trend=0.0):
  """A body whose slices differ by the factors and by a steady trend."""
  rng = np.random.default_rng(0)
  d, h, w = np.indices((9, 48, 48))
  body = np.hypot(h - 23.5, w - 23.5) < 18 + d / 2
  tissue = 100 + 40 * np.sin(h / 5) + rng.normal(0, 5, d.shape)
  array = np.where(body, tissue, 3) * np.exp(trend * d)
  array = array * np.reshape(factors, (-1, 1, 1))
  return volume.Volume(array.astype(np.float32), AFFINE)


def test_a_scan_of_one_piece_has_no_jumps_with_or_without_a_trend():
  for trend in (0.0, 0.06, -0.06):
    scan = stack(trend=trend).array
    found = slice_gains.report(scan, slice_gains.log_ratios(scan))
    assert found['jumps'] == 0 and not found['scaled_alone']
    assert found['largest'] < 1.1
  (record, _) = cardiac.cohort(
    'p', 1, shape=(11, 64, 64), spacing_mm=(10, 3, 3)
  ).records
  phantom = record.source.read()[0].array
  assert slice_gains.report(phantom, slice_gains.log_ratios(phantom))['jumps'] == 0


def test_each_jump_is_found_with_its_size():
  scan = stack(FACTORS).array
  ratios = slice_gains.log_ratios(scan)
  expected = np.diff(np.log(FACTORS))
  np.testing.assert_allclose(ratios, expected, atol=0.03)
  found = slice_gains.report(scan, ratios)
  assert found['jumps'] == (np.abs(expected) > np.log(slice_gains.JUMP)).sum() == 6
  assert found['largest'] == pytest.approx(1.8, rel=0.03)


def test_slices_that_were_scaled_one_by_one_are_recognised():
  scan = stack().array
  low, high = scan.min((1, 2), keepdims=True), scan.max((1, 2), keepdims=True)
  export = np.round((scan - low) / (high - low) * 255).astype(np.float32)
  assert slice_gains.report(export, slice_gains.log_ratios(export))['scaled_alone']


def test_harmonising_leaves_no_jump_keeps_the_trend_and_no_overall_gain():
  for trend in (0.0, 0.05):
    scan = stack(FACTORS, trend).array
    gains = slice_gains.gains(slice_gains.log_ratios(scan))
    left = slice_gains.log_ratios(scan * gains[:, None, None].astype(np.float32))
    np.testing.assert_allclose(left, np.mean(left), atol=0.03)
    assert np.mean(left) == pytest.approx(trend, abs=0.05)
    assert np.log(gains).sum() == pytest.approx(0, abs=1e-9)
  assert (
    slice_gains.gains(np.zeros(0)).tolist() == [1]
    and len(slice_gains.gains(np.ones(1))) == 2
  )


def test_the_inverse_takes_the_gains_back_and_default_is_to_leave_jumps_alone():
  scan = stack(FACTORS)
  spec = Spec((9, 48, 48), percentiles=(0, 100), harmonise_slices=True)
  processed = preprocess.apply(spec, scan)
  assert processed.record['slices']['jumps'] == 6
  back = preprocess.invert(processed.array, processed.record)
  np.testing.assert_allclose(back.array, scan.array, rtol=1e-4, atol=1e-2)
  plain = preprocess.apply(Spec((9, 48, 48), percentiles=(0, 100)), scan)
  assert plain.record['gains'] is None and plain.record['slices']['jumps'] == 6
  low, high = plain.record['intensity']
  np.testing.assert_allclose(plain.array * (high - low) + low, scan.array, atol=1e-2)


def test_the_real_set_that_was_exported_slice_by_slice_is_told(real_data):
  found = []
  for path in sorted((real_data / 'scd').glob('SC-N-*/*_E?.nii.gz'))[:8]:
    scan = volume.read(path, stack=True).array
    found.append(slice_gains.report(scan, slice_gains.log_ratios(scan)))
  assert found and all(report['scaled_alone'] for report in found)
  brain = volume.read(real_data / 'misc' / 't2_las_anisotropic.nii.gz', stack=True)
  assert not slice_gains.report(brain.array, slice_gains.log_ratios(brain.array))[
    'scaled_alone'
  ]
