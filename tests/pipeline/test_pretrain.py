"""Laws of pre-training: what it draws from, and which weights it may begin with."""

import types

import numpy as np
import pytest

from ldm_jax.config.parsing import override
from ldm_jax.data import cohorts_of_config
from ldm_jax.pipeline import pretrain
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder
from tests import micro

VOLUMES = np.random.default_rng(0).random((5, 4, 8, 8, 1)).astype(np.float32)


class Split:
  """Five public volumes, two attributes each."""

  name = 'public'
  attributes = np.arange(10, dtype=np.float32).reshape(5, 2)

  def __len__(self):
    return len(VOLUMES)

  def volumes(self, indices):
    return VOLUMES[indices]


@pytest.fixture
def opened(tmp_path, monkeypatch):
  """(overrides) -> a Run whose latents are its volumes."""
  monkeypatch.setattr(Run, 'latents', lambda run, split: VOLUMES)
  identity = types.SimpleNamespace(encode=lambda x: x)
  monkeypatch.setattr(Run, 'autoencoder', identity)
  monkeypatch.setattr(Run, 'statistics', {'mean': [0.0], 'std': [1.0]})
  return lambda **changes: Run(
    override(micro.get_config(), changes), WorkFolder(tmp_path)
  )


def test_without_copies_it_draws_from_the_latents_as_they_are(opened):
  latents, conditions = pretrain.examples(opened(), Split())
  assert latents is VOLUMES
  np.testing.assert_array_equal(conditions, Split.attributes)


def test_copies_follow_the_volumes_and_have_their_conditions(opened):
  run = opened(**{'augment.copies': 2, 'augment.gamma': 0.3})
  latents, conditions = pretrain.examples(run, Split())
  assert latents.shape == (15, *VOLUMES.shape[1:])
  np.testing.assert_array_equal(latents[:5], VOLUMES)
  for one, other in ((0, 5), (0, 10), (5, 10)):
    moved = np.abs(latents[one : one + 5] - latents[other : other + 5])
    assert moved.max(axis=(1, 2, 3, 4)).min() > 1e-3
  np.testing.assert_array_equal(conditions, np.tile(Split.attributes, (3, 1)))
  np.testing.assert_array_equal(pretrain.examples(run, Split())[0], latents)


def test_weights_that_are_not_there_are_refused_before_training(opened):
  pretrain.check(opened())
  run = opened(**{'diffusion.init': '/nope'})
  schema = cohorts_of_config.cohorts(run.config.data)['public'].schema
  vars(run)['prepared'] = {'public': types.SimpleNamespace(schema=schema)}
  with pytest.raises(ValueError, match=r'diffusion\.init.*no folder params'):
    pretrain.check(run)
