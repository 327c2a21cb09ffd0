"""Laws of preprocessing: exact geometry, exact inverse, intensities in [0,1]."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers import nifti, volume
from ldm_jax.data.readers.grid import grid_of_file

CODES = {
  'RAS': np.diag([1.5, 1.0, 4.0, 1.0]),
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


def scan_of(affine, shape=(9, 8, 7), values=None, stack=False):
  """A scan whose file has the affine; (x,y,z) of random integers by default."""
  if values is None:
    values = np.random.default_rng(0).integers(0, 500, shape)
  grid = grid_of_file(values.shape, affine, stack)
  array = np.ascontiguousarray(grid.orient(values), np.float32)
  return volume.Volume(array, grid.oriented_affine(), grid)


def world_of(shape, affine):
  index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
  return index @ affine[:3, :3].T + affine[:3, 3]


specs = st.builds(
  Spec,
  shape=st.tuples(*[st.integers(3, 14)] * 3),
  spacing_mm=st.tuples(*[st.sampled_from([None, 0.8, 2.0, 3.1])] * 3),
  centre=st.sampled_from(['grid', 'mass', 'label']),
)


@settings(max_examples=25, deadline=None)
@given(specs, st.sampled_from(list(CODES)), st.booleans())
def test_world_coordinates_survive_preprocessing_and_its_inverse(spec, codes, stack):
  """The scan is a map of world coordinates; what arrives is where it says it is."""
  scan = scan_of(CODES[codes], shape=(17, 16, 15), stack=stack)
  world = world_of(scan.array.shape, scan.affine)
  label = volume.Volume((scan.array > 250).astype(np.uint8), scan.affine, scan.source)
  record = preprocess.apply(spec, scan, label).record
  truth = world_of(spec.shape, np.array(record['affine']))
  rim = np.ones(spec.shape, bool)  # near the scan's rim the average leans inwards
  for axis in range(3):
    scale, offset = record['scale'][axis], record['offset'][axis]
    place = scale * np.arange(spec.shape[axis]) + offset
    reach = np.sqrt(max(scale**2 - 1, 0)) / 2 + (scale != 1)
    inner = (place >= reach - 1e-6) & (place <= scan.array.shape[axis] - 1 - reach)
    rim &= np.moveaxis(inner[:, None, None], 0, axis)
  for axis in range(3):
    low, high = world[..., axis].min(), world[..., axis].max()
    scaled = (world[..., axis] - low) / (high - low)
    ramp = volume.Volume(scaled.astype(np.float32), scan.affine, scan.source)
    moved = preprocess.apply(
      dataclasses.replace(spec, percentiles=(0, 100), foreground=False), ramp, label
    )
    if spec.centre == 'mass':  # another scan, another centre of mass
      continue
    first, last = moved.record['intensity']
    found = (moved.array * (last - first) + first) * (high - low) + low
    inside = rim & (moved.array > 0) & (moved.array < 1)
    np.testing.assert_allclose(found[inside], truth[inside][:, axis], atol=1e-3)
  back = preprocess.invert(np.zeros(spec.shape), record)
  np.testing.assert_allclose(world_of(back.array.shape, back.affine), world, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(CODES)), st.integers(0, 6), st.integers(0, 5))
def test_without_resampling_the_inverse_restores_the_values(codes, more, offset):
  scan = scan_of(CODES[codes])
  shape = tuple(
    n + more + (offset if axis == 1 else 0) for axis, n in enumerate(scan.array.shape)
  )
  spec = Spec(shape, percentiles=(0, 100), foreground=False)
  processed = preprocess.apply(spec, scan)
  back = preprocess.invert(processed.array, processed.record)
  assert back.array.shape == scan.array.shape
  np.testing.assert_allclose(back.affine, scan.affine, atol=1e-9)
  np.testing.assert_allclose(back.array, scan.array, atol=1e-3)
  assert np.array_equal(back.source.restore(back.array).shape, scan.source.shape)


def test_a_crop_comes_back_in_its_place():
  scan = scan_of(CODES['LAS'])
  spec = Spec((5, 4, 5), percentiles=(0, 100), foreground=False)
  processed = preprocess.apply(spec, scan)
  back = preprocess.invert(processed.array, processed.record)
  covered = preprocess.invert(np.ones(spec.shape), processed.record, label=True).array
  assert covered.sum() == np.prod(spec.shape)
  box = back.array[covered > 0], scan.array[covered > 0]
  inside = (box[1] >= processed.record['intensity'][0]) & (
    box[1] <= processed.record['intensity'][1]
  )
  np.testing.assert_allclose(box[0][inside], box[1][inside], atol=1e-3)
  assert (back.array[covered == 0] == processed.record['intensity'][0]).all()


@pytest.mark.parametrize('spacing', [(None, 2.0, 2.0), (None, None, None)])
@pytest.mark.parametrize('depth', [4, 7, 12])
def test_slices_of_a_stack_are_never_mixed(spacing, depth):
  values = np.ones((16, 16, 7)) * np.arange(1, 8)
  values[0, 0] = 0
  scan = scan_of(np.diag([1.3, 1.3, 8, 1]), values=values, stack=True)
  spec = Spec((depth, 10, 10), spacing, percentiles=(0, 100), foreground=False)
  processed = preprocess.apply(spec, scan)
  low, high = processed.record['intensity']
  found = processed.array[:, 5, 5] * (high - low) + low
  real = processed.mask[:, 5, 5]
  assert real.sum() == min(depth, 7)
  np.testing.assert_allclose(found[real], np.round(found[real]), atol=1e-4)
  assert np.ptp(np.diff(found[real])) < 1e-4


def test_padded_voxels_are_zero_and_masked():
  scan = scan_of(CODES['RAS'])
  processed = preprocess.apply(Spec((12, 12, 12)), scan, scan_label(scan))
  assert processed.mask.sum() == scan.array.size
  assert not processed.array[~processed.mask].any()
  assert not processed.label[~processed.mask].any()
  assert processed.array.dtype == np.float32 and processed.label.dtype == np.uint8
  assert processed.array.min() >= 0 and processed.array.max() <= 1


def scan_label(scan):
  label = np.zeros(scan.array.shape, np.uint8)
  label[2:4, 5:7, 6:8] = 1
  return volume.Volume(label, scan.affine, scan.source)


def test_labels_and_scan_stay_together():
  values = np.zeros((20, 18, 6))
  values[12:16, 3:8, 2:4] = 100
  scan = scan_of(np.diag([1.0, 1.0, 6.0, 1.0]), values=values, stack=True)
  label = volume.Volume((scan.array > 50).astype(np.uint8), scan.affine, scan.source)
  spec = Spec((6, 16, 16), (None, 0.5, 0.5), centre='label')
  processed = preprocess.apply(spec, scan, label)
  inside = processed.label == 1
  assert processed.array[inside].mean() > 0.85  # the rim is partial
  assert processed.array[~inside].mean() < 0.1
  back = preprocess.invert(processed.label, processed.record, label=True)
  assert (back.array == label.array).mean() > 0.99


@pytest.mark.parametrize('centre', ['mass', 'label'])
def test_what_is_centred_comes_to_the_middle(centre):
  values = np.zeros((40, 40, 3))
  values[28:32, 8:12] = 100
  scan = scan_of(np.eye(4), values=values)
  label = volume.Volume((scan.array > 50).astype(np.uint8), scan.affine, scan.source)
  processed = preprocess.apply(Spec((3, 12, 12), centre=centre), scan, label)
  middle = np.argwhere(processed.array > 0.5).mean(axis=0)
  np.testing.assert_allclose(middle, [1, 5.5, 5.5], atol=0.6)


def test_shrinking_does_not_alias():
  values = np.indices((40, 40, 2)).sum(0) % 2 * 100.0
  scan = scan_of(np.eye(4), values=values)
  spec = Spec((2, 10, 10), (None, 4, 4), percentiles=(0, 100), foreground=False)
  assert abs(preprocess.apply(spec, scan).array[:, 2:-2, 2:-2] - 0.5).max() < 0.1


def test_the_amount_of_air_does_not_change_the_brightness_of_the_body():
  rng = np.random.default_rng(1)
  body = rng.uniform(50, 150, (12, 12, 4))
  highs = []
  for size in (14, 40):
    values = np.zeros((size, size, 4))
    values[1:13, 1:13] = body
    scan = scan_of(np.eye(4), values=values)
    processed = preprocess.apply(Spec((4, size, size)), scan)
    highs.append(processed.record['intensity'][1])
  assert highs[0] == pytest.approx(highs[1], rel=0.05)


def test_the_record_and_the_spec_survive_json():
  processed = preprocess.apply(Spec((8, 8, 8), (None, 2, 2)), scan_of(CODES['PSR']))
  record = json.loads(json.dumps(processed.record))
  first = preprocess.invert(processed.array, processed.record)
  again = preprocess.invert(processed.array, record)
  assert np.array_equal(first.array, again.array)
  spec = Spec((8, 8, 8), (None, 2, 2), centre='mass')
  loaded = Spec.from_config(json.loads(json.dumps(spec.to_config())))
  assert loaded == spec and loaded.digest() == spec.digest()
  assert loaded.digest() != Spec((8, 8, 8)).digest()


@pytest.mark.parametrize(
  'config',
  [
    {'shape': (0, 8, 8)},
    {'shape': (8, 8)},
    {'shape': (8, 8, 8), 'spacing_mm': (0, 1, 1)},
    {'shape': (8, 8, 8), 'percentiles': (50, 10)},
    {'shape': (8, 8, 8), 'centre': 'liver'},
    {'shape': (8, 8, 8), 'centre_without_label': 'label'},
    {'shape': (8, 8, 8), 'harmonise_slices': 1},
    {'shape': (8, 8, 8), 'spacing': 1},
    {},
  ],
)
def test_an_impossible_spec_is_an_error_that_names_the_key(config):
  with pytest.raises(ValueError, match='preprocess'):
    Spec.from_config(config)


@pytest.mark.parametrize(
  ('name', 'stack'),
  [
    ('ixi/IXI012-HH-1211-T1.nii.gz', False),
    ('misc/t2_las_anisotropic.nii.gz', True),
    ('hippocampus/images/hippocampus_001.nii.gz', False),
    ('scd/SC-HF-I-02/SC-HF-I-02_ES.nii.gz', True),
  ],
)
def test_real_scans_return_to_their_own_grid(real_data, tmp_path, name, stack):
  scan = volume.read(real_data / name, stack=stack)
  spacing = (None, 2.0, 2.0) if stack else None
  shape = (30, 160, 160) if stack else tuple(n + 3 for n in scan.array.shape)
  processed = preprocess.apply(Spec(shape, spacing), scan)
  back = preprocess.invert(processed.array, processed.record)
  np.testing.assert_allclose(back.affine, scan.affine, atol=1e-9)
  low, high = processed.record['intensity']
  seen = np.clip(scan.array, low, high)
  error = np.abs(back.array - seen) / (high - low)
  assert error.mean() < (0.03 if stack else 1e-6)
  volume.write(tmp_path / 'b.nii', back.array, back.affine, back.source)
  np.testing.assert_allclose(
    volume.read(tmp_path / 'b.nii', stack=stack).affine, scan.affine, atol=1e-3
  )


LANDMARK_SPECS = (
  Spec((60, 120, 120), (None, 2.0, 2.0)),
  Spec((60, 100, 90), (2.5, 2.5, 2.5), centre='mass'),
  Spec((44, 76, 76), (None, 1.1, 1.1), centre='heart'),
)


@pytest.mark.parametrize('spec', LANDMARK_SPECS)
@pytest.mark.parametrize(
  ('name', 'stack'),
  [('misc/t2_las_anisotropic.nii.gz', True), ('ixi/IXI012-HH-1211-T1.nii.gz', False)],
)
def test_landmarks_of_real_scans_land_within_a_tenth_of_a_millimetre(
  real_data, spec, name, stack
):
  """A bright ball of known place in the world is there after the way in and back."""
  grid = nifti.read_header(real_data / name, stack).grid
  affine = grid.oriented_affine()
  shape = tuple(grid.shape[axis] for axis in grid.axes)
  middle = affine @ (*(n // 2 for n in shape), 1)
  landmark = middle[:3] + np.array([9, -7, 4])
  ball = ball_at(landmark, shape, affine)
  scan = volume.Volume(ball, affine, grid)
  whole = dataclasses.replace(spec, percentiles=(0, 100), foreground=False)
  processed = preprocess.apply(whole, scan)
  back = preprocess.invert(processed.array, processed.record)
  assert processed.record['affine'] != affine.tolist()
  for found in (scan, processed, back):
    assert np.linalg.norm(centre_of(found) - landmark) < 0.1


def ball_at(landmark, shape, affine):
  """(d,h,w) float32 Gaussian of 8 mm around a place in the world, cut at 1 %."""
  axes = [np.arange(n, dtype=np.float32) for n in shape]
  square = 0
  for row, place in zip(affine[:3], landmark, strict=True):
    along = [
      (step * axis).astype(np.float32) for step, axis in zip(row[:3], axes, strict=True)
    ]
    world = along[0][:, None, None] + along[1][:, None] + along[2]
    square = square + (world + np.float32(row[3] - place)) ** 2
  ball = np.exp(-square / (2 * 8**2))
  return np.where(ball < 0.01, np.float32(0), ball)


def centre_of(found):
  """Centre of mass (3,) in mm of what has an array and an affine."""
  others = ((1, 2), (0, 2), (0, 1))
  profiles = [found.array.sum(axes, dtype=np.float64) for axes in others]
  index = [profile @ np.arange(profile.size) / profile.sum() for profile in profiles]
  return (np.asarray(found.affine) @ (*index, 1))[:3]


def by_sorting(array, percentiles, foreground):
  low = np.percentile(array, percentiles[0])
  body = array[array > array.mean(dtype=np.float64)] if foreground else array
  return low, np.percentile(body, percentiles[1])


@settings(max_examples=40, deadline=None)
@given(
  st.integers(0, 2**32 - 1),
  st.sampled_from([(0.5, 99.5), (1, 95), (0, 100)]),
  st.booleans(),
  st.sampled_from([1.0, 0.37, 1e-30, 1e30]),
  st.booleans(),
  st.booleans(),
)
def test_percentiles_equal_those_of_numpy(
  seed, percentiles, fore, unit, whole, outlier
):
  rng = np.random.default_rng(seed)
  array = rng.gamma(2, 30, (7, 11, 13)) - rng.integers(0, 100)
  array = (np.round(array) if whole else array) * unit
  if outlier:
    array[0, 0, 0] = 1e6 * unit
  array = array.astype(np.float32)
  expected = by_sorting(array, percentiles, fore)
  if expected[0] < expected[1]:
    found = preprocess.window(array, percentiles, fore)
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6 * unit)


def test_a_constant_scan_is_an_error():
  with pytest.raises(ValueError, match='constant value 7'):
    preprocess.window(np.full((3, 3, 3), 7.0), (1, 99), True)


def test_a_fixed_window_is_the_same_for_every_scan():
  spec = Spec((4, 5, 6), window=(-1000, 800))
  rng = np.random.default_rng(0)
  for brightest in (300, 3000):
    array = rng.uniform(-1000, brightest, (4, 5, 6)).astype(np.float32)
    made = preprocess.apply(spec, volume.Volume(array, np.eye(4)))
    expected = np.clip((array + 1000) / 1800, 0, 1)
    assert np.allclose(made.array, expected, atol=1e-6)
    assert made.record['intensity'] == [-1000, 800]


@pytest.mark.parametrize(
  'window', [(1, 1), (2, 1), (0,), (0, 1, 2), ('a', 'b'), (0, np.inf)]
)
def test_a_window_is_two_numbers_in_order(window):
  with pytest.raises(ValueError, match=r'preprocess\.window'):
    Spec((4, 5, 6), window=window)


@pytest.mark.parametrize(
  ('shape', 'mm', 'words'),
  [
    ((1, 64, 64), 1.0, '1 x 64 x 64 mm, the box 128 x 128 x 128 mm'),
    ((200, 240, 200), 0.05, '10 x 12 x 10 mm, the box 128 x 128 x 128 mm'),
  ],
)
def test_a_scan_that_fills_too_little_of_the_box_is_refused_in_mm(shape, mm, words):
  array = np.random.default_rng(0).normal(300, 60, shape).astype(np.float32)
  scan = volume.Volume(array, np.diag([mm, mm, mm, 1.0]))
  spec = Spec((32, 32, 32), (4, 4, 4))
  with pytest.raises(ValueError, match=words):
    preprocess.apply(spec, scan)
  spec = dataclasses.replace(spec, least_filled=0)
  if shape[0] > 1:
    assert 0 < preprocess.apply(spec, scan).record['filled'] < 0.01
  else:
    with pytest.raises(ValueError, match=words):
      preprocess.apply(spec, scan)


def test_gains_leave_hounsfield_units_alone_and_propose_nothing_for_them():
  array = np.full((6, 24, 24), -1000, np.float32)
  array[:, 6:18, 6:18] = 40 * np.arange(1, 7)[:, None, None]
  made = [
    preprocess.apply(
      Spec((6, 24, 24), harmonise_slices=on), volume.Volume(array, np.eye(4))
    )
    for on in (False, True)
  ]
  assert np.array_equal(made[0].array, made[1].array)
  assert made[0].record['slices']['jumps'] == 0 and made[0].record['slices']['signed']
  assert made[1].record['gains'] is None
