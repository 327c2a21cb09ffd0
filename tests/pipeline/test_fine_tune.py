"""Laws of the private latents: versions of a volume know no other volume."""

import types

import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.pipeline import fine_tune
from ldm_jax.pipeline.run import Run

VOLUMES = np.random.default_rng(0).random((5, 4, 6, 6, 1)).astype(np.float32)
WORK = types.SimpleNamespace(read_json=lambda *parts: {'mean': [0.0], 'std': [1.0]})


class Split:
  """Some of the volumes, each under the hash of its content."""

  name = 'private'

  def __init__(self, chosen):
    self.chosen = np.asarray(chosen)
    self.keys = [f'hash of {index}' for index in chosen]

  def __len__(self):
    return len(self.chosen)

  def volumes(self, indices):
    return VOLUMES[self.chosen[indices]]


@pytest.fixture
def versions(monkeypatch):
  """(volumes' numbers, overrides) -> (versions, volumes, ...), encoded as they are."""
  monkeypatch.setattr(Run, 'latents', lambda run, split: VOLUMES[split.chosen])
  identity = types.SimpleNamespace(encode=lambda x: x)
  monkeypatch.setattr(Run, 'autoencoder', identity)

  def make(chosen, **overrides):
    words = {'adapt.augment.multiplicity': 3, 'autoencoder.batch_size': 2, **overrides}
    run = Run(override(defaults(), words), WORK)
    found = fine_tune.private_latents(run, Split(chosen))
    return found.reshape(-1, len(chosen), *VOLUMES.shape[1:])

  return make


def test_another_patient_changes_no_version_of_this_one(versions):
  """Add or remove a patient: all others' versions stay, whatever their place."""
  everyone, fewer = versions(range(5)), versions((1, 2, 4))
  np.testing.assert_array_equal(everyone[:, [1, 2, 4]], fewer)


def test_the_first_version_is_the_volume_and_the_others_differ(versions):
  found = versions(range(5))
  assert len(found) == 3
  np.testing.assert_array_equal(found[0], VOLUMES)
  for one, other in ((0, 1), (0, 2), (1, 2)):
    assert np.abs(found[one] - found[other]).max(axis=(1, 2, 3, 4)).min() > 1e-3


def test_versions_follow_the_seed_and_nothing_else(versions):
  once = versions((0, 1))
  np.testing.assert_array_equal(once, versions((0, 1)))
  assert not np.array_equal(once, versions((0, 1), **{'adapt.seed': 1}))


def test_all_scans_of_a_patient_move_alike_where_they_make_pairs(versions, monkeypatch):
  """Equal volumes under other hashes, one of another patient: who moves as whom?"""
  same = lambda self, indices: VOLUMES[np.zeros(len(indices), int)]
  monkeypatch.setattr(Split, 'volumes', same)
  monkeypatch.setattr(Split, 'patients', ['a', 'a', 'b'], raising=False)
  apart, paired = versions((0, 1, 2)), versions((0, 1, 2), **{'adapt.pairs.use': True})
  assert not np.array_equal(apart[1, 0], apart[1, 1])
  np.testing.assert_array_equal(paired[1:, 0], paired[1:, 1])
  assert not np.array_equal(paired[1, 0], paired[1, 2])
