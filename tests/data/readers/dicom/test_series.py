"""Laws of series: every voxel in its place and frame, and which volume a path means."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ldm_jax.data.readers import volume
from ldm_jax.data.readers.dicom import series

SHAPE = (7, 6, 5)


def stack_affine(angles=(0, 0, 0), flips=(1, 1, 1), order=(0, 1, 2), spacing=None):
  """RAS affine of slices turned, mirrored and permuted at will."""
  turned = Rotation.from_euler('xyz', angles, degrees=True).as_matrix()
  axes = turned[:, order] * np.array(flips)
  affine = np.eye(4)
  affine[:3, :3] = axes * (spacing or (1.3, 0.9, 8.0))
  affine[:3, 3] = -41.5, 103.25, 250.125
  return affine


def marked(shape=SHAPE, at=(5, 1, 3)):
  voxels = np.zeros(shape, np.int16)
  voxels[at] = 100
  return voxels


@settings(max_examples=8, deadline=None)
@given(
  angles=st.tuples(*[st.floats(-180, 180)] * 3),
  flips=st.tuples(*[st.sampled_from((-1, 1))] * 3),
  order=st.permutations((0, 1, 2)),
  at=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]),
  stack=st.booleans(),
)
def test_a_landmark_lands_within_a_tenth_of_a_millimetre(
  tmp_path_factory, save_series, angles, flips, order, at, stack
):
  affine = stack_affine(angles, flips, order)
  folder = save_series(tmp_path_factory.mktemp('d'), marked(at=at), affine)
  scan = volume.read(folder, stack=stack)
  found = np.argwhere(scan.array == 100)
  assert len(found) == 1
  place = scan.affine @ [*found[0], 1]
  np.testing.assert_allclose(place, affine @ [*at, 1], atol=0.01)
  if stack:
    assert scan.array.shape[0] == SHAPE[2]


def test_a_sheared_stack_keeps_its_slant(tmp_path, save_series):
  affine = stack_affine()
  affine[1, 2] = 1.5  # every slice 1.5 mm further, as a tilted gantry leaves them
  scan = volume.read(save_series(tmp_path, marked(), affine))
  found = np.argwhere(scan.array == 100)[0]
  np.testing.assert_allclose(
    scan.affine @ [*found, 1], affine @ [5, 1, 3, 1], atol=0.01
  )


def test_header_promises_what_reading_gives(tmp_path, save_series):
  voxels = np.random.default_rng(0).integers(0, 99, (*SHAPE, 4)).astype(np.int16)
  folder = save_series(tmp_path, voxels, stack_affine((10, 20, 30)))
  header = series.read_header(folder, stack=True)
  frames, read = series.read_frames(folder, stack=True)
  assert header.shape == frames.shape[1:] and header.num_frames == len(frames) == 4
  np.testing.assert_array_equal(header.grid.affine, read.grid.affine)
  assert header.clock == 'TriggerTime' and header.times_ms == (0, 25, 50, 75)
  for index in range(4):
    one, _ = series.read_frame(folder, index, stack=True)
    np.testing.assert_array_equal(one, frames[index])
    np.testing.assert_array_equal(read.grid.restore(one), voxels[..., index])


@pytest.mark.parametrize(
  ('elements', 'clock', 'times'),
  [
    (
      lambda z, t: {'AcquisitionTime': f'1015{z:02d}.{t:02d}0000'},
      'AcquisitionTime',
      3,
    ),
    (lambda z, t: {'InstanceNumber': 100 * z + t}, 'InstanceNumber', 0),
  ],
)
def test_frames_fall_back_to_a_named_clock(
  tmp_path, save_series, elements, clock, times
):
  voxels = np.random.default_rng(0).integers(0, 99, (*SHAPE, 3)).astype(np.int16)

  def element(z, t):
    return {'TriggerTime': ''} | elements(z, t)

  folder = save_series(tmp_path, voxels, stack_affine(), element)
  frames, header = series.read_frames(folder)
  assert header.clock == clock and len(header.times_ms) == times
  if times:
    np.testing.assert_allclose(header.times_ms, (0, 10, 20), atol=1e-3)
  np.testing.assert_array_equal(header.grid.restore(frames[2]), voxels[..., 2])


def test_an_enhanced_file_is_read_as_its_plain_series(
  tmp_path, save_dicom, save_series
):
  affine = stack_affine((25, -40, 70))
  voxels = np.random.default_rng(0).integers(0, 99, (*SHAPE, 2)).astype(np.int16)
  plain = save_series(tmp_path / 'plain', voxels, affine)
  lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
  spacing = np.linalg.norm(affine[:3, :3], axis=0)

  def group(**parts):
    item = pydicom.Dataset()
    for sequence, elements in parts.items():
      inner = pydicom.Dataset()
      for keyword, value in elements.items():
        setattr(inner, keyword, value)
      setattr(item, sequence, [inner])
    return item

  order = [(z, t) for t in (1, 0) for z in (3, 0, 4, 1, 2)]
  frames = [
    group(
      PlanePositionSequence={
        'ImagePositionPatient': (lps[:3, 3] + z * lps[:3, 2]).round(9).tolist()
      },
      CardiacSynchronizationSequence={'NominalCardiacTriggerDelayTime': 25.0 * t},
    )
    for z, t in order
  ]
  cosines = (lps[:3, :2] / spacing[:2]).T.ravel().round(12).tolist()
  shared = group(
    PlaneOrientationSequence={'ImageOrientationPatient': cosines},
    PixelMeasuresSequence={'PixelSpacing': [spacing[1], spacing[0]]},
  )
  pixels = np.stack([voxels[:, :, z, t].T for z, t in order])
  enhanced = save_dicom(
    tmp_path / 'enhanced.dcm',
    voxels[:, :, 0, 0],
    NumberOfFrames=10,
    PixelData=pixels.tobytes(),
    SharedFunctionalGroupsSequence=[shared],
    PerFrameFunctionalGroupsSequence=frames,
    ImagePositionPatient=None,
    ImageOrientationPatient=None,
    PixelSpacing=None,
  )
  for path in (plain, enhanced):
    found, header = series.read_frames(path)
    assert header.clock == 'TriggerTime' and header.times_ms == (0, 25)
    np.testing.assert_allclose(header.grid.affine, affine, atol=1e-5)
    restored = [header.grid.restore(frame) for frame in found]
    np.testing.assert_array_equal(np.stack(restored, -1), voxels)


def test_a_mixed_series_is_split_and_each_part_has_a_name(tmp_path, save_series):
  series = {'SeriesNumber': 7}
  for number, angles in enumerate([(0, 0, 0), (90, 0, 0)]):
    save_series(
      tmp_path / str(number),
      marked() + np.int16(number),
      stack_affine(angles),
      lambda z, t: series,
    )
  with pytest.raises(ValueError, match=r'2 volumes.*#1.*#2.*expected one') as error:
    volume.read(tmp_path)
  assert '5 planes of 7 x 6' in str(error.value)
  parts = [volume.read(f'{tmp_path}#{n}') for n in (1, 2)]
  assert [part.array.min() for part in parts] == [0, 1]
  with pytest.raises(ValueError, match='2 volumes'):
    volume.read(f'{tmp_path}#3')


def test_the_frame_of_a_cine_must_be_named(tmp_path, save_series):
  folder = save_series(tmp_path, np.stack([marked()] * 3, -1), stack_affine())
  for frame in (None, 3, -1):
    with pytest.raises(ValueError, match=r'3 frames .*TriggerTime.*options\.frame'):
      volume.read(folder, frame=frame)


def test_magnitude_and_phase_are_two_volumes(tmp_path, save_series):
  for kind in 'MP':
    save_series(
      tmp_path / kind,
      marked(),
      stack_affine(),
      lambda z, t, kind=kind: {'ImageType': ['ORIGINAL', 'PRIMARY', kind]},
    )
  with pytest.raises(ValueError, match='2 volumes'):
    volume.read(tmp_path)


def test_a_report_among_the_images_is_passed_over(tmp_path, save_series, save_dicom):
  folder = save_series(tmp_path / 'a', marked(), stack_affine())
  expected = volume.read(folder).array
  report = save_dicom(
    tmp_path / 'a' / 'report.dcm', Rows=None, Columns=None, PixelData=None
  )
  data = pydicom.dcmread(report)
  data.file_meta.MediaStorageSOPClassUID = pydicom.uid.BasicTextSRStorage
  pydicom.dcmwrite(report, data)
  np.testing.assert_array_equal(volume.read(folder).array, expected)


def test_values_are_rescaled_slice_by_slice(tmp_path, save_series):
  voxels = marked()
  folder = save_series(
    tmp_path,
    voxels,
    stack_affine(),
    lambda z, t: {'RescaleSlope': 2.0 + z, 'RescaleIntercept': -10.0},
  )
  array, header = series.read_frame(folder)
  expected = voxels * (2.0 + np.arange(5)) - 10
  np.testing.assert_array_equal(header.grid.restore(array), expected)
