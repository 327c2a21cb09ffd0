"""Laws of the geometry of the brain phantom's head."""

import numpy as np
import pytest

from ldm_jax.data.phantom.brain import head
from ldm_jax.data.phantom.brain.population import brain_of, sample_subject
from tests.data.phantom.renderings import VIEW, brain


def test_the_head_lies_within_the_field_of_view_above_the_neck():
  labels = brain(0).labels
  for side in (
    labels[-1],
    labels[:, 0],
    labels[:, -1],
    labels[..., 0],
    labels[..., -1],
  ):
    assert not side.any()


@pytest.mark.parametrize('index', [0, 1])
def test_the_skull_holds_the_intracranial_volume(index):
  subject, attributes = sample_subject(7, index, 'public')
  wanted = brain_of(subject, attributes)['intracranial_ml']
  assert sum(brain(index).volumes_ml.values()) == pytest.approx(wanted, rel=0.05)


def test_points_are_mirrored_to_the_right_half_and_scaled_with_the_volume():
  subject, _ = sample_subject(7, 0, 'public')
  small, large = (head.build(subject, ml, VIEW) for ml in (1000.0, 1728.0))
  assert large.scale / small.scale == pytest.approx(1.2)
  assert small.half[0].min() >= 0 and small.points[0].min() < 0
  np.testing.assert_array_equal(small.half[1:], small.points[1:])


def test_a_field_of_view_that_cuts_the_head_is_refused():
  with pytest.raises(ValueError, match='hold a head'):
    head.View((10, 10, 10), (5, 5, 5))
