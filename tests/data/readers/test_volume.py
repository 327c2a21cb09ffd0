"""Laws of volumes: exact ways into (d,h,w) and back, and labels on their grid."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data.readers import volume

AFFINES = {
  'RAS': np.diag([1.0, 1.0, 1.0, 1.0]),
  'PSR': np.array([[0, 0, 2, -88.0], [-2, 0, 0, 118], [0, 2, 0, -135], [0, 0, 0, 1]]),
  'LAS': np.array([[-0.75, 0, 0, 24], [0, 0.75, 0, -9], [0, 0, 5.5, -7], [0, 0, 0, 1]]),
  'oblique': np.array(
    [
      [-0.75, 0.0, -0.042, 124.5],
      [0.0008, 0.7427, -0.7648, -113.8],
      [-0.0057, 0.1043, 5.4464, -75.8],
      [0, 0, 0, 1],
    ]
  ),
}


@pytest.mark.parametrize('name', AFFINES)
@pytest.mark.parametrize('stack', [False, True])
def test_read_then_write_gives_the_same_file_back(tmp_path, save_nifti, name, stack):
  path = save_nifti(tmp_path / 'a.nii.gz', affine=AFFINES[name])
  scan = volume.read(path, stack=stack)
  volume.write(tmp_path / 'b.nii.gz', scan.array, scan.affine, scan.source)
  before, after = nib.load(path), nib.load(tmp_path / 'b.nii.gz')
  assert np.array_equal(before.get_fdata(), after.get_fdata())
  np.testing.assert_allclose(before.affine, after.affine, atol=1e-4)
  assert after.header['sform_code'] == 1 and after.header['qform_code'] == 1


@pytest.mark.parametrize('name', AFFINES)
def test_a_landmark_keeps_its_world_coordinate_on_either_grid(
  tmp_path, save_nifti, name
):
  voxels = np.zeros((6, 5, 4), np.float32)
  voxels[4, 1, 2] = 100
  path = save_nifti(tmp_path / 'a.nii', voxels, AFFINES[name])
  expected = AFFINES[name] @ [4, 1, 2, 1]
  scan = volume.read(path)
  for source in (None, scan.source):
    volume.write(tmp_path / 'b.nii', scan.array, scan.affine, source)
    image = nib.load(tmp_path / 'b.nii')
    place = np.argwhere(image.get_fdata() == 100)[0]
    np.testing.assert_allclose(image.affine @ [*place, 1], expected, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(['uint8', 'int16', 'int32', 'float32', 'bool', 'int64']))
def test_any_type_can_be_written(tmp_path_factory, dtype):
  path = tmp_path_factory.mktemp('types') / 'a.nii.gz'
  array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
  volume.write(path, array, np.eye(4))
  assert np.array_equal(nib.load(path).get_fdata().transpose(2, 1, 0), array)


def test_writing_twice_gives_the_same_bytes(tmp_path):
  array = np.random.default_rng(0).random((3, 4, 5), np.float32)
  for name in 'ab':
    volume.write(tmp_path / f'{name}.nii.gz', array, np.eye(4))
  assert (tmp_path / 'a.nii.gz').read_bytes() == (tmp_path / 'b.nii.gz').read_bytes()


def test_writing_on_a_grid_of_another_place_is_an_error(tmp_path, save_nifti):
  scan = volume.read(save_nifti(tmp_path / 'a.nii'))
  with pytest.raises(ValueError, match='affine'):
    volume.write(tmp_path / 'b.nii', scan.array, scan.affine + 1, scan.source)


def refuse(path, *words):
  with pytest.raises(ValueError) as error:
    volume.read(path)
  message = str(error.value)
  assert str(path) in message and '\n' not in message
  assert all(word in message for word in words), message


def test_nan_voxels_are_refused_and_counted(tmp_path, save_nifti):
  voxels = np.ones((4, 4, 4), np.float32)
  voxels[0, 0, :2] = np.nan, np.inf
  refuse(save_nifti(tmp_path / 'a.nii', voxels), '2 NaN or infinite', '64')


def test_a_constant_volume_is_refused(tmp_path, save_nifti):
  refuse(save_nifti(tmp_path / 'a.nii', np.full((4, 4, 4), 7.0)), 'constant', '7')


def test_labels_follow_their_scan(tmp_path, save_nifti):
  labels = np.zeros((6, 5, 4), np.float32)
  labels[1, 2, 3] = 2
  scan = volume.read(save_nifti(tmp_path / 'a.nii', affine=AFFINES['PSR']))
  path = save_nifti(tmp_path / 'l.nii', labels, AFFINES['PSR'])
  found = volume.read_label(path, like=scan)
  assert found.array.dtype == np.uint8
  np.testing.assert_allclose(
    found.affine @ [*np.argwhere(found.array == 2)[0], 1],
    AFFINES['PSR'] @ [1, 2, 3, 1],
  )


def test_labels_of_another_grid_are_refused(tmp_path, save_nifti):
  scan = volume.read(save_nifti(tmp_path / 'a.nii'))
  labels = np.zeros((6, 5, 4), np.uint8)
  moved = np.eye(4)
  moved[0, 3] = 3
  for name, path in (
    ('shape', save_nifti(tmp_path / 's.nii', labels[1:])),
    ('away', save_nifti(tmp_path / 'm.nii', labels, moved)),
  ):
    with pytest.raises(ValueError, match=name):
      volume.read_label(path, like=scan)


@pytest.mark.parametrize('value', [0.5, -1, 300, np.nan])
def test_labels_must_be_small_integers(tmp_path, save_nifti, value):
  voxels = np.zeros((4, 4, 4), np.float32)
  voxels[0] = value
  with pytest.raises(ValueError, match=r'options\.label'):
    volume.read_label(save_nifti(tmp_path / 'l.nii', voxels))


@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    ('ixi/IXI012-HH-1211-T1.nii.gz', (120, 120, 90)),
    ('misc/t2_las_anisotropic.nii.gz', (26, 320, 320)),
  ],
)
def test_real_files_of_other_orientations_come_out_upright(real_data, name, shape):
  scan = volume.read(real_data / name)
  assert scan.array.shape == shape
  assert nib.aff2axcodes(scan.affine) == ('S', 'A', 'R')


@pytest.mark.parametrize('axes', itertools.permutations(range(3)))
def test_labels_in_another_order_of_the_voxels_are_reordered_exactly(
  tmp_path, save_nifti, axes
):
  affine = np.array([[0, 2, 0.1, -9], [-3, 0, 0, 8], [0, 0.05, 4, 1], [0, 0, 0, 1.0]])
  voxels = np.random.default_rng(0).integers(0, 4, (6, 5, 4)).astype(np.uint8)
  scan = volume.read(save_nifti(tmp_path / 's.nii', affine=affine))
  own = volume.read_label(save_nifti(tmp_path / 'l.nii', voxels, affine), like=scan)
  for flips in itertools.product((False, True), repeat=3):
    turned, place = np.transpose(voxels, axes), affine[:, [*axes, 3]].copy()
    for axis in np.flatnonzero(flips):
      turned = np.flip(turned, axis)
      place[:, 3] += place[:, axis] * (turned.shape[axis] - 1)
      place[:, axis] *= -1
    path = save_nifti(tmp_path / 'm.nii', np.ascontiguousarray(turned), place)
    found = volume.read_label(path, like=scan)
    assert np.array_equal(found.array, own.array)
    assert np.array_equal(found.affine, scan.affine)
  place[0, 3] += 0.5
  path = save_nifti(tmp_path / 'm.nii', np.ascontiguousarray(turned), place)
  with pytest.raises(ValueError, match=r'0\.50 mm away'):
    volume.read_label(path, like=scan)
