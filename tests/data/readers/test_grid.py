"""Laws of grids: axes are flipped and permuted exactly."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from ldm_jax.data.readers.grid import Grid, grid_of_file, own_grid

ORIENTATIONS = [
  ''.join(letters)
  for axes in itertools.permutations(('LR', 'PA', 'IS'))
  for letters in itertools.product(*axes)
]


def affine_of(codes, spacing=(1.0, 2.0, 3.0), tilt=0.0):
  """Affine of a file whose axes point along `codes`, tilted by `tilt` radians."""
  turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (6, 5, 4))
  cos, sin = np.cos(tilt), np.sin(tilt)
  tilted = np.eye(4)
  tilted[:3, :3] = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.array(
    [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
  )
  return tilted @ np.linalg.inv(turn) @ np.diag([*spacing, 1.0])


@pytest.mark.parametrize('codes', ORIENTATIONS)
@pytest.mark.parametrize('tilt', [0.0, 0.3])
def test_every_voxel_keeps_its_world_coordinate(codes, tilt):
  grid = grid_of_file((6, 5, 4), affine_of(codes, tilt=tilt))
  i, j, k = np.meshgrid(*map(np.arange, grid.shape), indexing='ij')
  world = np.stack([i, j, k, np.ones_like(i)], -1) @ grid.affine.T
  turned = np.stack([grid.orient(world[..., c]) for c in range(3)], -1)
  d, h, w = np.meshgrid(*map(np.arange, turned.shape[:3]), indexing='ij')
  found = np.stack([d, h, w, np.ones_like(d)], -1) @ grid.oriented_affine().T
  np.testing.assert_allclose(found[..., :3], turned, atol=1e-9)


@pytest.mark.parametrize('codes', ORIENTATIONS)
def test_axes_increase_towards_superior_anterior_right(codes):
  grid = grid_of_file((6, 5, 4), affine_of(codes, tilt=0.2))
  assert nib.aff2axcodes(grid.oriented_affine()) == ('S', 'A', 'R')


@pytest.mark.parametrize('codes', ORIENTATIONS)
def test_restore_inverts_orient(codes):
  grid = grid_of_file((6, 5, 4), affine_of(codes))
  array = np.arange(120).reshape(6, 5, 4)
  assert np.array_equal(grid.restore(grid.orient(array)), array)


@pytest.mark.parametrize('thick', [0, 1, 2])
def test_a_stack_keeps_its_through_plane_axis_first(thick):
  spacing = [1.5, 1.5, 1.5]
  spacing[thick] = 8.0
  grid = grid_of_file((6, 5, 4), affine_of('RAS', spacing, tilt=0.2), stack=True)
  assert grid.axes[0] == thick


def test_an_isotropic_stack_takes_the_third_file_axis():
  assert grid_of_file((6, 5, 4), affine_of('PSR', (1, 1, 1)), stack=True).axes[0] == 2


def test_a_grid_survives_json():
  grid = grid_of_file((6, 5, 4), affine_of('PSR', tilt=0.1))
  again = Grid.from_json(grid.to_json())
  assert again.to_json() == grid.to_json()


def test_own_grid_is_the_arrays_own():
  affine = affine_of('SAR')
  np.testing.assert_allclose(own_grid((4, 5, 6), affine).oriented_affine(), affine)
