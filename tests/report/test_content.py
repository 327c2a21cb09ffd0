"""Laws of what the report gathers: public scans only, and marks for the rest."""

import pathlib
import types

import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.report import content
from ldm_jax.synthesis.write_counterfactuals import COUNTERFACTUALS
from ldm_jax.synthesis.write_samples import SAMPLES, SWEEPS

X = np.random.default_rng(0).random((20, 2, 4, 4, 1)).astype(np.float32)


class Split:
  """Stands in for data.store.Split: volumes by their numbers."""

  def __len__(self):
    return len(X)

  def volumes(self, chosen):
    return X[chosen]


def gather(cohort='public', splits=None, folder=pathlib.Path('none')):
  files = {
    ('metrics.json',): {'kid': 1.0, 'frechet': None},
    ('store', 'control.json'): {'LV': [[1.0, 2.0], [3.0, 4.0]]},
    ('checkpoints', 'sample', 'done.json'): {'model': 'adapt'},
  }
  arrays = {
    SAMPLES: {'volumes': X},
    SWEEPS: {'names': ['LV'], 'LV_values': [1, 2], 'LV_volumes': X[:2, ..., 0]},
    COUNTERFACTUALS: {
      'cohort': np.array(cohort),
      'source': X[:1],
      'counterfactual': X[1:2],
      'texts': np.array(['sex = M']),
      'truth': X[2:3],
    },
  }
  work = types.SimpleNamespace(
    read_json=lambda *path: files.get(path),
    read_arrays=arrays.get,
    events=lambda: [{'stage': 'adapt'}],
    path=folder.joinpath,
  )
  return content.gather(defaults(), work, splits or {}, lambda x: 1 - x)


def test_scans_on_the_page_are_public_ones():
  found = gather(splits={'public': Split(), 'private': Split()})['images']
  np.testing.assert_array_equal(found['real'], X[:8, ..., 0])
  np.testing.assert_array_equal(found['reconstructed'], 1 - X[:8, ..., 0])
  assert 'real' not in gather(splits={'private': Split()})['images']


@pytest.mark.parametrize(('cohort', 'marked'), [('public', False), ('test', True)])
def test_edits_of_scans_that_are_not_public_are_internal(cohort, marked):
  assert ('counterfactuals' in gather(cohort)['images']['internal']) is marked


def test_what_the_stages_left_is_gathered():
  found = gather()
  assert found['metrics'] == {'kid': 1.0}
  assert found['models'] == {'samples': 'adapt'}
  assert len(found['images']['synthetic']) == 16
  ((source, changed, difference, text),) = found['images']['counterfactuals']
  np.testing.assert_array_equal(difference, changed - source)
  assert text == 'sex = M'
  np.testing.assert_array_equal(found['images']['truths'], X[2:3, ..., 0])
  values, _ = found['images']['sweeps']['LV']
  assert values == [1, 2]
  np.testing.assert_array_equal(found['control']['LV'][1], [3.0, 4.0])


def test_other_pages_are_named_only_where_they_are(tmp_path):
  (tmp_path / 'report').mkdir()
  (tmp_path / 'report' / 'autoencoder.html').touch()
  assert list(gather(folder=tmp_path)['pages']) == ['autoencoder.html']
  assert gather()['pages'] == {}
