"""Laws of centring: each rule finds what it is named after; its name is recorded."""

import numpy as np

from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.centring import centre
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers import volume

SPACING = np.array([8.0, 2.0, 2.0])


def affine(spacing):
  """(d,h,w) run along S, A, R."""
  matrix = np.zeros((4, 4))
  matrix[[2, 1, 0], [0, 1, 2]] = spacing
  matrix[3, 3] = 1
  return matrix


def chest(heart_mm):
  """A bright ventricle at (h,w) mm from the middle, in a body with a bright back."""
  _, h, w = np.indices((8, 128, 128)) * SPACING[:, None, None, None]
  h, w = h - 127, w - 127
  array = np.where(np.hypot(h, w) < 115, 60.0, 2.0)
  array[np.hypot(h + 100, w) < 30] = 250  # fat at the rim, far from the middle
  array[np.hypot(h - heart_mm[0], w - heart_mm[1]) < 22] = 200
  return volume.Volume(array.astype(np.float32), affine(SPACING))


def test_the_heart_is_found_where_planning_missed_it_by_two_centimetres():
  for heart in ((0, 0), (15, -12), (-20, 5)):
    scan = chest(heart)
    place, rule = centre('heart', 'mass', scan, None)
    found = (place[1:] - 63.5) * SPACING[1:]
    assert rule == 'heart' and np.hypot(*(found - heart)) < 8
    assert place[0] == 3.5
  fat, _ = centre('mass', 'mass', chest((15, -12)), None)
  assert np.hypot(*((fat[1:] - 63.5) * 2 - (15, -12))) > 8


def test_the_heart_on_real_stacks_is_as_near_as_the_docs_say(real_data):
  errors = []
  for path in sorted((real_data / 'scd').glob('*/*_ED.nii.gz'))[::3]:
    scan = volume.read(path, stack=True)
    label = volume.read_label(
      str(path).replace('.nii', '_gt.nii'), stack=True, like=scan
    )
    truth, rule = centre('label', 'mass', scan, label)
    found, _ = centre('heart', 'mass', scan, None)
    assert rule == 'label'
    errors.append(np.hypot(*((found - truth)[1:] * scan.spacing[1:])))
  assert np.median(errors) < 8 and np.mean(np.array(errors) < 20) > 0.8


def test_a_neck_does_not_move_the_brain():
  places = []
  for neck_mm in (20, 120):
    d, h, w = np.indices(((180 + neck_mm) // 4, 60, 60)) * 4.0
    d = d - neck_mm
    head = ((d - 85) / 85) ** 2 + ((h - 130) / 95) ** 2 + ((w - 120) / 75) ** 2 < 1
    neck = (np.hypot(h - 90, w - 120) < 50) & (d < 60)
    scan = volume.Volume(np.where(head | neck, 100.0, 1.0), affine((4.0, 4, 4)))
    place, rule = centre('brain', 'mass', scan, None)
    assert rule == 'brain'
    places.append(place * 4 - (neck_mm, 0, 0))
  np.testing.assert_allclose(places[0], places[1], atol=8)
  np.testing.assert_allclose(places[1], (80, 125, 120), atol=12)


def test_the_rule_that_placed_a_scan_stands_in_its_record():
  scan = chest((15, -12))
  spec = Spec((8, 40, 40), centre='label', centre_without_label='heart')
  empty = volume.Volume(np.zeros(scan.array.shape, np.uint8), scan.affine)
  label = volume.Volume((scan.array == 200).astype(np.uint8), scan.affine)
  rules = [
    preprocess.apply(spec, scan, given).record['centre']
    for given in (None, empty, label)
  ]
  assert rules == ['heart', 'heart', 'label']
