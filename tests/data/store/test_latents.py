"""Laws of stored latents: one file for each autoencoder, kind and set of entries."""

import types

import numpy as np
import pytest

from ldm_jax.data.store import latents


class Entries(types.SimpleNamespace):
  """What latents need of a split."""

  def __len__(self):
    return len(self.keys)


PUBLIC, PRIVATE = Entries(keys=['a', 'b', 'c']), Entries(keys=['d', 'e', 'f'])
ARRAY = np.random.default_rng(0).random((3, 2, 3, 3, 4), np.float32)


def test_latents_belong_to_one_split_one_autoencoder_and_one_kind(tmp_path):
  assert latents.read(tmp_path, PUBLIC, 'a/b') is None
  latents.write(tmp_path, PUBLIC, 'a/b', ARRAY)
  found = latents.read(tmp_path, PUBLIC, 'a/b')
  assert np.array_equal(found, ARRAY) and not found.flags.writeable
  assert latents.read(tmp_path, PUBLIC, 'other') is None
  assert latents.read(tmp_path, PRIVATE, 'a/b') is None
  assert latents.read(tmp_path, PUBLIC, 'a/b', 'logvar') is None


@pytest.mark.parametrize('array', [np.zeros((2, 2)), np.full((3, 2), np.nan)])
def test_latents_must_be_finite_and_one_per_entry(tmp_path, array):
  with pytest.raises(ValueError, match=r'Expected 3 finite latents.*learning_rate'):
    latents.write(tmp_path, PUBLIC, 'a', array)


def test_only_mean_and_log_variance_are_stored(tmp_path):
  with pytest.raises(ValueError, match=r"'draw' are not stored.*'mean', 'logvar'"):
    latents.write(tmp_path, PUBLIC, 'a', ARRAY, 'draw')
