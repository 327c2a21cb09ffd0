"""Laws of the causal figures in metrics.json."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import assess

SCHEMA = Schema((Attribute('age', low=0, high=100),))
SIZES = np.array([4, 6, 8, 5])
AIMS = SIZES + np.array([2, 4, 1, 3])


class Thresholds:
  """Measures a bright square exactly."""

  measures = True

  def labels(self, volumes):
    return (volumes[..., 0] > 0.5).astype(np.uint8)


def squares(sizes):
  x = np.full((len(sizes), 1, 16, 16, 1), 0.1)
  for image, size in zip(x, sizes, strict=True):
    image[0, :size, :4] = 0.9
  return x


def figures(edited, null=0.0, cohort='public', known=True, network=None):
  source = squares(SIZES)
  aim = squares(AIMS)
  content = {
    'source': source,
    'counterfactual': edited,
    'null': source + null,
    'nulls': source + 3 * null,
    'returned': source,
    'reference': source,
    'null_cycles': 10,
    'own': np.zeros((4, 1), np.float32),
    'new': np.zeros((4, 1), np.float32),
    'cohort': cohort,
    'patients': list('abcd'),
  }
  if known:
    # Value 7 in the files is class 1.
    content |= {
      'truth': aim,
      'truth_labels': 7 * (aim[..., 0] > 0.5).astype(np.uint8),
      'source_labels': 7 * (source[..., 0] > 0.5).astype(np.uint8),
    }
  section = ConfigDict(
    {
      'measures': ({'name': 'square', 'kind': 'volume', 'classes': (1,)},),
      'labels': (0, 7),
      'num_bootstrap': 50,
    }
  )
  network = network or Thresholds()
  return assess.soundness(content, section, SCHEMA, network, (10.0, 10.0, 10.0))


def test_the_oracle_is_perfect_in_every_figure():
  found = figures(squares(AIMS))
  assert found['truth']['reduction']['value'] == 1
  assert found['outside']['share']['value'] == 0
  effect = found['effectiveness_square']
  assert effect['error']['value'] == 0
  assert effect['gain']['value'] == pytest.approx(1)
  assert effect['pearson_r']['value'] == pytest.approx(1)


def test_the_identity_composes_perfectly_and_has_no_effect():
  found = figures(squares(SIZES))
  assert found['composition']['value'] == found['composition_10']['value'] == 0
  assert found['composition_10_psnr']['value'] == 100
  assert found['reversibility']['value'] == 0
  effect = found['effectiveness_square']
  assert effect['gain']['value'] == 0 and effect['direction']['value'] == 0
  assert effect['pearson_r']['value'] is None
  assert effect['error']['value'] == pytest.approx(4 * 2.5)  # ml, 4 columns
  assert found['truth']['reduction']['value'] == 0


def test_what_the_measuring_network_cannot_see_is_told_apart_from_no_effect():
  class Blind(Thresholds):
    def labels(self, volumes):
      return 0 * super().labels(volumes)

  seen, unseen = (
    figures(squares(SIZES), network=network)['measurable_square']
    for network in (Thresholds(), Blind())
  )
  assert seen['gain']['value'] == pytest.approx(1)
  assert seen['pearson_r']['value'] == pytest.approx(1)
  assert unseen['gain']['value'] == 0 and unseen['pearson_r']['value'] is None


def test_errors_that_add_up_show_in_the_ten_cycles():
  found = figures(squares(SIZES), null=0.01)
  one, ten = (found[name]['value'] for name in ('composition', 'composition_10'))
  assert ten == pytest.approx(3 * one)
  assert found['composition_psnr']['value'] == pytest.approx(40)
  assert found['composition_10_psnr']['value'] < 40


def test_counterfactuals_of_private_patients_are_internal_in_every_figure():
  found = figures(squares(SIZES), cohort='private')
  for name in ('composition', 'composition_10', 'reversibility'):
    assert found[name]['internal'] is True
  for name in ('truth', 'outside', 'effectiveness_square', 'measurable_square'):
    assert all(part['internal'] is True for part in found[name].values())


def test_without_a_truth_there_is_nothing_to_compare_with():
  assert set(figures(squares(SIZES), known=False)) == {
    'composition',
    'composition_psnr',
    'composition_10',
    'composition_10_psnr',
    'reversibility',
  }
