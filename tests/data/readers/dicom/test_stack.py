"""Laws of stacks: slices by place, frames by a clock, and refusals with numbers."""

import dataclasses

import numpy as np
import pytest

from ldm_jax.data.readers.dicom.container import Member
from ldm_jax.data.readers.dicom.planes import Plane
from ldm_jax.data.readers.dicom.stack import arrange

FIRST_MM = (-41.5, 103.25, 250.125)


def plane(z, frame=0, move=(0, 0, 0), **changes):
  """Axial plane number `z`, 8 mm from the last, of 7 columns and 6 rows."""
  found = Plane(
    member=Member(f'{z}-{frame}', 1, ''),
    frame=None,
    position=np.add(FIRST_MM, (0, 0, 8.0 * z)) + move,
    row=np.array([1.0, 0, 0]),
    column=np.array([0, 1.0, 0]),
    spacing=(1.3, 0.9),
    shape=(7, 6),
    thickness=None,
    rescale=(1, 0),
    inverted=False,
    stored=(0, 255),
    series='',
    number=4,
    description='',
    kind=(),
    times={'TriggerTime': 25.0 * frame, 'InstanceNumber': float(frame)},
  )
  return dataclasses.replace(found, **changes)


def planes(num_slices=5, num_frames=1, **changes):
  return [plane(z, t, **changes) for z in range(num_slices) for t in range(num_frames)]


def test_slices_and_frames_come_in_order_whatever_the_order_of_the_files():
  shuffled = np.random.default_rng(0).permutation(planes(4, 3))
  stack = arrange(list(shuffled), 'x')
  names = [[p.member.name for p in frame] for frame in stack.frames]
  assert names == [[f'{z}-{t}' for z in range(4)] for t in range(3)]
  assert stack.clock == 'TriggerTime' and stack.times_ms == (0, 25, 50)


def test_the_affine_maps_indices_to_ras_millimetres():
  affine = arrange(planes(), 'x').affine
  x, y, z = FIRST_MM
  np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-x, -y, z, 1])
  expected = [-x - 2 * 1.3, -y - 3 * 0.9, z + 4 * 8, 1]
  np.testing.assert_allclose(affine @ [2, 3, 4, 1], expected)


def test_one_slice_takes_its_thickness_from_the_header_or_is_refused():
  assert arrange([plane(0, thickness=3.0)], 'x').affine[2, 2] == 3
  with pytest.raises(ValueError, match='no thickness'):
    arrange([plane(0)], 'x')


def test_times_of_day_count_from_the_first_frame_of_each_slice():
  found = [
    plane(z, t, times={'AcquisitionTime': 1e4 * (z + 1) + 30.0 * t})
    for z in range(3)
    for t in range(2)
  ]
  stack = arrange(found, 'x')
  assert stack.clock == 'AcquisitionTime' and stack.times_ms == (0, 30)


def test_a_header_states_shape_frames_and_series():
  header = arrange(planes(4, 3), 'x').header(stack=True)
  assert header.shape == (4, 6, 7) and header.num_frames == 3 and header.series == 4
  np.testing.assert_allclose(header.spacing, [8, 0.9, 1.3])


@pytest.mark.parametrize(
  ('found', 'message'),
  [
    (planes()[:2] + planes()[3:], r'16\.00 mm between .*\(1 missing\?\)'),
    (
      [plane(z, move=(0, 0, 0.7 * (z == 4))) for z in range(5)],
      r'8\.70 mm between 274\.12 and 282\.82',
    ),
    (
      [plane(z, move=(2.5 * (z == 2), 0, 0)) for z in range(5)],
      r'slice at 266\.12 mm 2\.50 mm off',
    ),
    ([*planes(), plane(3)], r'5 slices of 1 frames each, but 2 at 274\.12 mm'),
    (planes(5, 3)[:-1], r'5 slices of 3 frames each, but 2 at'),
    (planes(3, 2, times={}), 'none of TriggerTime, AcquisitionTime'),
  ],
  ids=['missing', 'uneven', 'off_the_line', 'repeated', 'lost_frame', 'no_time'],
)
def test_what_is_no_even_stack_is_refused_with_numbers(found, message):
  with pytest.raises(ValueError, match=message) as error:
    arrange(found, 'the scan')
  assert str(error.value).startswith('the scan holds')


@pytest.mark.parametrize('step', [(0, 0, 2.77), (0.31, 0.17, 1.234), (0, 0, 0.625)])
def test_positions_rounded_to_a_tenth_of_a_mm_are_evened_out(step):
  moves = np.arange(30)[:, None] * step
  places = np.round(np.add(FIRST_MM, moves), 1)
  found = arrange([plane(0, position=place) for place in places], 'x')
  lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ found.affine
  true = np.add(FIRST_MM, moves)
  at = lps[:3, 3] + np.arange(30)[:, None] * lps[:3, 2]
  assert np.abs(at - true).max() < 0.06
  assert [remark.kind for remark in found.remarks] == ['positions']
  # A slice that is missing is still missed, in the same words.
  with pytest.raises(ValueError, match='missing'):
    arrange([plane(0, position=place) for place in np.delete(places, 7, 0)], 'x')


def test_positions_in_whole_mm_are_refused_with_the_word_rounding():
  places = np.round(np.arange(12)[:, None] * np.array([0, 0, 1.25]))
  with pytest.raises(ValueError, match='whole mm throughout, so rounding'):
    arrange([plane(0, position=place) for place in places], 'x')
