"""Laws of the causal figures in metrics.json."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import assess

SCHEMA = Schema((Attribute('age', low=0, high=100),))
SIZES = np.array([4, 6, 8, 5])
AIMS = SIZES + np.array([2, 4, 1, 3])


CLASSIFIER = {'batch_size': 4, 'learning_rate': 1e-3, 'channels': (2, 2)}


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


class Cohort:
  """As much of a prepared cohort as `assess` reads: squares, one scan a patient."""

  def __init__(self, name, spacing_mm, num=4):
    self.name, self.num_patients = name, num
    self.patients = [f'{name}-{number}' for number in range(num)]
    self.spacing_mm = np.asarray(spacing_mm)
    self.attributes = np.linspace(-1, 1, num, dtype=np.float32)[:, None]
    self._x = squares(3 + np.arange(num))

  def __len__(self):
    return self.num_patients

  def volumes(self, indices):
    return self._x[indices]


def all_figures(splits, spacing_mm=(10.0, 10.0, 10.0)):
  network = Thresholds()
  network.name, network.sha256 = 'thresholds', '0'
  network.features = lambda x: x[:].reshape(len(x), 1, 16, 16)[..., :3].mean((1, 2))
  measure = {
    'name': 'square',
    'kind': 'volume',
    'classes': (1,),
    'attributes': ('age',),
  }
  section = ConfigDict(
    {
      'measures': ({**measure, 'attributes': ('age',)},),
      'labels': (0, 7),
      'num_bootstrap': 5,
      'only': ('two_sample', 'memorisation', 'control', 'reconstruction', 'ms_ssim'),
      'two_sample': {'enabled': True, 'seeds': 1, 'steps': 1, **CLASSIFIER},
      'groups': {'by': ()},
    }
  )
  samples = {'volumes': squares(SIZES), 'requests': np.zeros((4, 1), np.float32)}
  found, _ = assess.assess(
    splits, samples, network, lambda x: 0.9 * x, SCHEMA, section, spacing_mm
  )
  return found


def leaves(entry, reads=None):
  """(figure, cohorts that it says it read) of nested figures."""
  reads = entry.get('reads', reads)
  inner = [value for value in entry.values() if isinstance(value, dict)]
  if not inner or reads is not None:
    yield entry, reads
  for value in inner:
    yield from leaves(value, reads)


def test_every_figure_says_what_it_read_and_is_internal_if_that_is_not_public():
  scans = {name: Cohort(name, (10.0,) * 3) for name in ('public', 'private', 'test')}
  for names in (('public',), ('public', 'private'), ('public', 'private', 'test')):
    found = all_figures({name: scans[name] for name in names})
    del found['features']  # the name of a network
    marked = list(leaves({k: v for k, v in found.items() if v is not None}))
    assert len(marked) > 6
    for figure, reads in marked:
      assert reads is not None, figure
      if 'reads' in figure:
        private = bool({'private', 'test'} & set(reads))
        assert figure.get('internal', False) is private, figure
  assert found['memorisation']['features']['reads'] == ['private', 'test']
  assert found['ms_ssim']['synthetic']['reads'] == []
  told_apart = found['two_sample']
  assert told_apart['reads'] == told_apart['real_halves']['reads'] == ['test']
  assert found['control']['square']['reads'] == ['public']


def test_figures_of_samples_do_not_depend_on_the_spacing_of_a_private_scan():
  def of_samples(name, spacing):
    found = all_figures(
      {'public': Cohort('public', (10,) * 3), name: Cohort(name, spacing)}
    )
    return found['control'], found['control_real']

  for name in ('private', 'test'):
    (one, own), (other, others) = (of_samples(name, s) for s in ((5,) * 3, (20,) * 3))
    assert one == other
    assert own != others, 'real scans are measured in their own millimetres'
