"""Laws of the look of the brain phantom."""

import numpy as np

from ldm_jax.data.phantom.brain import cohort
from ldm_jax.data.phantom.brain.population import sample_subject
from tests.data.phantom.renderings import CSF, GREY, VIEW, WHITE, brain


def test_a_null_change_is_no_change_and_two_scans_differ_by_noise_only():
  subject, attributes = sample_subject(7, 0, 'public')
  first, again = brain(0), cohort.render(subject, attributes, VIEW)
  np.testing.assert_array_equal(first.image, again.image)
  other = cohort.render(subject, attributes, VIEW, acquisition=1)
  np.testing.assert_array_equal(first.labels, other.labels)
  assert 0 < np.abs(first.image - other.image).mean() < 0.05


def test_white_matter_is_brighter_than_grey_and_grey_than_csf_at_both_sites():
  ratios = []
  for site in ('public', 'private'):
    found = brain(0, site)
    means = [found.image[found.fractions[k] > 0.9].mean() for k in (CSF, GREY, WHITE)]
    assert means[0] < means[1] < means[2]
    ratios.append(means[2] / means[1])
  assert ratios[0] > ratios[1] + 0.1  # the sites differ in contrast
