"""Laws of the true counterfactuals."""

import nibabel as nib
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.store import store
from ldm_jax.synthesis import true_counterfactuals, write_counterfactuals
from ldm_jax.workfolder import WorkFolder

SHAPE = (1, 40, 40)
NAMES = ('age', 'sex', 'cardiothoracic_ratio', 'effusion', 'consolidation')


@pytest.fixture(scope='module')
def chest(tmp_path_factory):
  config = defaults()
  section = config.data.public
  section.layout, section.part = 'phantom_chest', ''
  with section.options.unlocked():
    section.options.update(num_patients=2, shape=(1, 64, 64), name='public')
  spec = preprocess.Spec(SHAPE, (None, 10.0, 10.0))
  root = tmp_path_factory.mktemp('store')
  store.prepare(root, cohorts_of_config.cohorts(config.data)['public'], spec)
  return config, store.open_split(root, 'public')


def changed(split, name, value):
  new = split.attributes.copy()
  new[:, NAMES.index(name)] = split.schema[name].encode(value)
  return new


def test_the_truth_of_no_change_is_the_source(chest):
  config, split = chest
  own = split.attributes
  found = true_counterfactuals.render(config, split, [0, 1], own, own)
  np.testing.assert_allclose(found['truth'], split.volumes([0, 1]), atol=1e-5)
  np.testing.assert_array_equal(found['truth_labels'], found['source_labels'])
  np.testing.assert_array_equal(found['source_labels'], split.labels([0, 1]))


def test_the_truth_of_a_larger_heart_differs_from_the_source_only_there(chest):
  config, split = chest
  new = changed(split, 'cardiothoracic_ratio', 0.7)
  found = true_counterfactuals.render(config, split, [0, 1], split.attributes, new)
  moved = np.abs(found['truth'] - split.volumes([0, 1])) > 1e-3
  assert 0.01 < moved.mean() < 0.3
  hearts = [(found[f'{name}_labels'] == 2).sum() for name in ('source', 'truth')]
  assert hearts[1] > 1.3 * hearts[0]


def test_other_data_have_no_truth(chest):
  _, split = chest
  other = defaults()
  other.data.public.layout = 'folder'
  own = split.attributes
  assert true_counterfactuals.render(other, split, [0], own[:1], own[:1]) == {}


def test_an_unknown_value_has_no_truth(chest):
  config, split = chest
  new = split.attributes.copy()
  new[:, 0] = np.nan
  with pytest.raises(ValueError, match='age unknown'):
    true_counterfactuals.render(config, split, [0, 1], split.attributes, new)


def test_a_box_that_follows_the_content_is_refused(chest, tmp_path):
  config, _ = chest
  spec = preprocess.Spec(SHAPE, (None, 10.0, 10.0), centre='mass')
  store.prepare(tmp_path, cohorts_of_config.cohorts(config.data)['public'], spec)
  split = store.open_split(tmp_path, 'public')
  own = split.attributes
  with pytest.raises(ValueError, match=r"centre='mass'.*centre='grid'"):
    true_counterfactuals.render(config, split, [0, 1], own, own)


def test_the_true_counterfactual_is_written_beside_the_edited_one(
  chest, system_of, tmp_path
):
  config, split = chest
  weights = np.linspace(-1, 1, 15).reshape(5, 3).astype(np.float32)
  system = system_of(split.schema, w=weights)
  section = config.counterfactual
  section.num, section.steps, section.null_cycles = 2, 3, 3
  with section.set.unlocked():
    section.set.effusion = 0.4
  work = WorkFolder(tmp_path)
  write_counterfactuals.write_counterfactuals(config, work, system, split)
  kept = work.read_arrays(write_counterfactuals.COUNTERFACTUALS)
  assert kept['truth'].shape == kept['source'].shape == (2, *SHAPE, 1)
  assert (kept['truth_labels'] == 3).sum() > (kept['source_labels'] == 3).sum()
  np.testing.assert_allclose(kept['nulls'], kept['source'], atol=1e-3)
  assert int(kept['null_cycles']) == 3
  for name in split.ids:
    true, source = (
      nib.load(tmp_path / 'counterfactuals' / f'{name}_{kind}.nii.gz')
      for kind in ('truth', 'source')
    )
    np.testing.assert_array_equal(true.affine, source.affine)
    assert np.abs(true.get_fdata() - source.get_fdata()).max() > 0.1
