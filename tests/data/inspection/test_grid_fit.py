"""Laws of grids that fit scans: what is left is told, what is proposed covers."""

import dataclasses

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.inspection import grid_fit
from ldm_jax.data.inspection.grid_fit import Geometry
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers.volume import Volume
from ldm_jax.data.store import store

HIPPOCAMPUS = Geometry((35, 51, 35), (1.0,) * 3, (35.0, 51.0, 35.0), 0.4)


def volume(shape, spacing, seed=0):
  array = np.random.default_rng(seed).random(shape).astype(np.float32)
  z, y, x = spacing
  affine = np.array([[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1.0]])
  return Volume(array, affine)


def test_few_voxels_are_told_in_numbers():
  (message,) = grid_fit.poor(Spec((32, 32, 32), (4, 4, 4)), [HIPPOCAMPUS] * 3)
  for words in ('3 of 3 scans', '35 x 51 x 35 voxels of 1 x 1 x 1 mm', '8 x 12 x 8'):
    assert words in message
  assert not grid_fit.poor(Spec((36, 52, 36), (1, 1, 1)), [HIPPOCAMPUS])


def test_a_scan_lost_in_its_box_is_told_even_at_its_own_spacing():
  small = dataclasses.replace(HIPPOCAMPUS, shape=(16, 16, 16), extent=(16.0,) * 3)
  assert grid_fit.is_poor(Spec((64, 64, 64)), small)
  assert not grid_fit.is_poor(Spec((20, 20, 20)), small)


@pytest.mark.parametrize('spacing', [None, (2, 2, 2), (None, 1.4, 1.4), (0.5, 3, 1)])
@pytest.mark.parametrize('shape', [(8, 8, 8), (5, 30, 13)])
def test_what_is_kept_is_what_preprocessing_leaves(shape, spacing):
  spec, scan = Spec(shape, spacing), volume((6, 20, 15), (3, 1, 1.5))
  reach = preprocess.apply(spec, scan).mask
  left = [np.any(reach, axis=tuple({0, 1, 2} - {axis})).sum() for axis in range(3)]
  assert list(grid_fit.kept(spec, grid_fit.measure(scan, None))) == left


@pytest.mark.parametrize('room', [2**12, 2**15, 2**18])
@pytest.mark.parametrize('multiples', [(4, 4, 4), (1, 8, 8)])
def test_a_proposal_covers_most_scans_within_its_room(room, multiples):
  rng = np.random.default_rng(room)
  geometries = []
  for _ in range(40):
    shape, spacing = rng.integers(30, 60, 3), np.array([1.5, 0.8, 0.8])
    extent = tuple((shape * spacing).tolist())
    geometries.append(Geometry(tuple(shape.tolist()), tuple(spacing), extent, 0.4))
  found = grid_fit.propose(geometries, Spec((9, 9, 9), (1, 1, 1)), multiples, room)
  assert not np.any(np.array(found.shape) % multiples)
  assert np.prod(found.shape) <= room
  assert found.spacing_mm >= (1.5, 0.8, 0.8), 'nothing is made up between voxels'
  whole = [grid_fit.inside(found, geometry) == 1 for geometry in geometries]
  assert np.mean(whole) >= 0.85, '95 % of the scans on each of three axes'


def test_a_small_scan_keeps_its_spacing_and_a_large_one_is_coarsened():
  spec = Spec((32, 32, 32), (4, 4, 4))
  own = grid_fit.propose([HIPPOCAMPUS], spec, (4, 4, 4), 2**17)
  assert (own.shape, own.spacing_mm) == ((36, 52, 36), (1, 1, 1))
  coarse = grid_fit.propose([HIPPOCAMPUS], spec, (4, 4, 4), 2**15)
  assert np.prod(coarse.shape) <= 2**15 and not grid_fit.is_poor(coarse, HIPPOCAMPUS)
  assert grid_fit.fits(own, [HIPPOCAMPUS], own)
  assert not grid_fit.fits(spec, [HIPPOCAMPUS], coarse)


def test_thick_slices_stay_as_they_are_where_the_config_keeps_them():
  stack = Geometry((10, 256, 256), (8.0, 1.4, 1.4), (80.0, 358.4, 358.4), 0.3)
  for spacing in (None, (None, 2, 2)):
    found = grid_fit.propose([stack], Spec((12, 48, 48), spacing), (1, 4, 4), 2**15)
    assert found.shape[0] == 10 and found.spacing_mm[0] is None
    assert np.prod(found.shape) <= 2**15 and grid_fit.inside(found, stack) == 1


def test_where_labels_are_put_into_the_middle_they_are_what_is_covered():
  scan, label = volume((6, 40, 40), (8, 1, 1)), np.zeros((6, 40, 40), np.uint8)
  label[2:4, 10:20, 5:15] = 1
  spec = Spec((6, 16, 16), centre='label')
  found = grid_fit.measure(scan, Volume(label, scan.affine), spec)
  assert found.extent == (24, 15, 15), 'one and a half times 2 x 10 x 10 voxels'
  planned = grid_fit.measure(scan, None, spec)
  assert planned.extent == (48, 16, 16), 'without labels, the box that was chosen'


def test_prepared_scans_are_measured_as_their_files_are(tmp_path, save_nifti):
  paths = [save_nifti(tmp_path / f'{n}.nii', seed=n) for n in range(3)]
  records = [Record(p.stem, p.stem, FileSource(str(p))) for p in paths]
  cohort, spec = Cohort('mine', Schema(()), tuple(records)), Spec((8, 8, 8), (2, 1, 3))
  store.prepare(tmp_path / 'store', cohort, spec)
  stored = grid_fit.of_split(store.open_split(tmp_path / 'store', 'mine'))
  for record, found in zip(records, stored, strict=True):
    expected = grid_fit.measure(*record.source.read())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.spacing, expected.spacing)
    np.testing.assert_allclose(found.extent, expected.extent)
