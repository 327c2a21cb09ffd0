"""Laws of the figures of label maps."""

import numpy as np

from ldm_jax.evaluation import label_maps


def rings(thickness=2, gap=False, size=24, depth=6):
  """A disc (1) within a ring (2), open on one side if there is a gap."""
  y, x = np.indices((size, size)) - (size - 1) / 2
  radius = np.hypot(y, x)
  plane = np.where(radius < 5, 1, np.where(radius < 5 + thickness, 2, 0))
  if gap:
    plane[(np.abs(y) < 1.5) & (x > 0) & (plane == 2)] = 0
  return np.repeat(plane[None, None], depth, 1).astype(np.uint8)


def test_a_ring_is_closed_until_a_path_leads_out_of_it():
  for gap, share in ((False, 1), (True, 0)):
    assert label_maps.closed_rings(rings(gap=gap), 1, 2) == [share]
  half = rings()
  half[0, 2] = rings(gap=True)[0, 2]
  # The outermost slices do not count: four of six are left.
  np.testing.assert_allclose(label_maps.closed_rings(half, 1, 2), [0.75])
  half[0, 0] = rings(gap=True)[0, 0]
  np.testing.assert_allclose(label_maps.closed_rings(half, 1, 2), [0.75])
  assert np.isnan(label_maps.closed_rings(np.zeros((1, 4, 8, 8)), 1, 2)).all()
  # A disc that touches the border of the picture is not enclosed.
  cut = rings()[:, :, 8:]
  assert label_maps.closed_rings(cut, 1, 2) == [0]


def test_a_class_is_one_piece_unless_a_part_of_some_size_lies_apart():
  maps = np.repeat(rings(), 4, 0)
  maps[1, 0, 0, 0] = 1  # a single voxel
  maps[2, :, :3, :3] = 1
  maps[3] = 0
  found = label_maps.single_component(maps, 1)
  np.testing.assert_array_equal(found, [1, 1, 0, np.nan])


def test_dice_is_twice_the_overlap_over_both_and_unknown_without_either():
  a, b = np.zeros((2, 1, 1, 4), int), np.zeros((2, 1, 1, 4), int)
  a[0, 0, 0, :2], b[0, 0, 0, 1:3] = 1, 1
  b[1, 0, 0, 0] = 2
  found = label_maps.dice(a, b, 3)
  np.testing.assert_array_equal(found, [[0.5, np.nan], [np.nan, 0]])


def test_surface_distances_are_in_mm_and_symmetric():
  a = np.zeros((1, 4, 16, 16), np.uint8)
  a[0, :, 4:9, 4:9] = 1
  moved = np.roll(a, 3, 3)
  spacing = (8.0, 1.0, 2.0)
  far = label_maps.surface_distance_mm(a, moved, 2, spacing, 100)
  assert far == [[6.0]] == label_maps.surface_distance_mm(moved, a, 2, spacing, 100)
  assert label_maps.surface_distance_mm(a, a, 2, spacing) == [[0.0]]
  lost = label_maps.surface_distance_mm(a * 0, a, 2, spacing)
  np.testing.assert_allclose(lost, np.linalg.norm([32, 16, 32]))
  assert np.isnan(label_maps.surface_distance_mm(a * 0, a * 0, 2, spacing)).all()
  flat = a[:, :1]
  found = label_maps.surface_distance_mm(flat, np.roll(flat, 1, 2), 2, spacing)
  assert 0 < found[0, 0] <= 1


def test_the_figures_have_a_mean_over_patients_and_name_their_classes():
  maps = np.concatenate([rings(), rings(), rings(gap=True)])
  found = label_maps.sanity(maps, ['none', 'disc', 'wall'], [(1, 2)], list('aab'))
  assert found['closed_ring']['wall']['value'] == 0.5
  assert found['closed_ring']['wall']['n'] == 2
  assert found['single_component']['disc']['value'] == 1
  assert 'none' not in found['single_component']
  same = label_maps.agreement(maps, maps, ['none', 'disc', 'wall'])
  assert same['wall']['value'] == 1 and same['wall']['n'] == 3
  measures = [
    {'kind': 'volume', 'classes': (1,)},
    {'kind': 'thickness', 'classes': (1, 2)},
  ]
  assert label_maps.rings_of(measures) == [(1, 2)]
