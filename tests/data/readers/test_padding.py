"""Laws of padding: what no scanner measured becomes air, what it measured stays."""

import numpy as np
import pytest

from ldm_jax.data.readers import padding, volume


def ct(seed=0):
  """(d,h,w) Hounsfield units: a body in noisy air, and what a circle leaves out."""
  noise = np.random.default_rng(seed).normal(0, 20, (8, 24, 24))
  array = (noise - 1000).round().astype(np.float32)
  array[:, 6:18, 6:18] += 1040
  row, column = np.indices((24, 24))
  outside = np.broadcast_to((row - 12) ** 2 + (column - 12) ** 2 > 120, array.shape)
  return array, outside


@pytest.mark.parametrize('value', [-1500, -2000, -3024, -9999, -32768, 62512, 64512])
def test_a_constant_border_that_is_neither_air_nor_tissue_becomes_air(value):
  array, outside = ct()
  padded = np.where(outside, np.float32(value), array)
  found, remarks = padding.replace_border(padded)
  assert np.array_equal(found, np.where(outside, array[~outside].min(), array))
  assert [remark.kind for remark in remarks] == ['padding']
  assert str(int(outside.sum())) in remarks[0].text and str(value) in remarks[0].text


def test_air_metal_and_scans_that_are_no_ct_are_left_alone():
  array, outside = ct()
  metal = array.copy()
  metal[4, 10:12, 10:12] = 30000
  signed = np.random.default_rng(1).normal(0, 1500, array.shape).astype(np.float32)
  for kept in (array, np.where(outside, -1024, array), metal, signed, abs(signed) * 40):
    found, remarks = padding.replace_border(kept)
    assert found is kept and not remarks
  assert not padding.replace_border(np.clip(signed, -2048, 2047))[1]


@pytest.mark.parametrize(
  ('stored', 'elements'),
  [
    (-2000, {'PixelPaddingValue': -2000}),
    (-2000, {'PixelPaddingValue': -2010, 'PixelPaddingRangeLimit': -1990}),
    (-2000, {'PixelPaddingValue': -1990, 'PixelPaddingRangeLimit': -2010}),
    (-50, {'PixelPaddingValue': -50}),
    (-2000, {}),
  ],
)
def test_padding_of_dicom_does_not_change_the_scan_inside(
  tmp_path, save_series, stored, elements
):
  array, outside = ct()
  voxels = np.where(outside, stored, array).transpose(2, 1, 0).astype(np.int16)
  affine = np.diag([2.0, 2.0, 3.0, 1.0])
  plain = save_series(tmp_path / 'a', array.transpose(2, 1, 0).astype(np.int16), affine)
  padded = save_series(tmp_path / 'b', voxels, affine, lambda z, t: elements)
  inside, found = volume.read(plain), volume.read(padded)
  same = inside.array != inside.array.min()
  assert found.array.min() == array[~outside].min()
  turned = volume.Volume(outside.astype(np.float32), inside.affine).array > 0
  turned = found.source.orient(turned.transpose(2, 1, 0))
  assert np.array_equal(found.array[~turned & same], inside.array[~turned & same])
  assert [remark.kind for remark in found.remarks] == ['padding']


def test_a_scan_of_padding_alone_is_refused(tmp_path, save_series):
  voxels = np.full((5, 4, 3), -2000, np.int16)
  element = lambda z, t: {'PixelPaddingValue': -2000}
  with pytest.raises(ValueError, match=r'padding .* in all'):
    volume.read(save_series(tmp_path, voxels, np.eye(4), element))
