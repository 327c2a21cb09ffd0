"""Embedded text of patients: NaN where no token is, every misfit named."""

import types

import numpy as np
import pytest

from ldm_jax.data.store import text_embeddings

SPLIT = types.SimpleNamespace(
  name='public', ids=['a_1', 'a_2', 'b'], patients=['a', 'a', 'b']
)
TOKENS = np.arange(6.0).reshape(2, 3)


class Split(types.SimpleNamespace):
  def __len__(self):
    return len(self.ids)


@pytest.fixture
def split():
  return Split(**vars(SPLIT))


def test_scans_of_a_patient_share_its_text_and_others_have_none(tmp_path, split):
  np.save(tmp_path / 'a.npy', TOKENS)
  found = text_embeddings.read(f'{tmp_path}/{{patient}}.npy', split, 4, 3).reshape(
    3, 4, 3
  )
  np.testing.assert_array_equal(found[:2, :2], [TOKENS, TOKENS])
  assert np.isnan(found[:2, 2:]).all() and np.isnan(found[2]).all()


def test_masked_tokens_are_left_out(tmp_path, split):
  np.savez(tmp_path / 'b.npz', text=TOKENS, mask=[False, True])
  found = text_embeddings.read(f'{tmp_path}/{{id}}.npz', split, 2, 3).reshape(3, 2, 3)
  np.testing.assert_array_equal(found[2, 0], TOKENS[1])
  assert np.isnan(found[2, 1]).all()


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.zeros((2, 4)), 'text.width'),
    (np.zeros((3, 3)), 'text.num_tokens is 2'),
    (np.zeros(3), 'token embeddings'),
    (np.full((1, 3), np.nan), 'finite'),
  ],
)
def test_files_that_do_not_fit_are_named(tmp_path, split, array, message):
  np.save(tmp_path / 'b.npy', array)
  with pytest.raises(ValueError, match=message):
    text_embeddings.read(f'{tmp_path}/{{id}}.npy', split, 2, 3)


def test_paths_that_lead_nowhere_are_named(tmp_path, split):
  with pytest.raises(ValueError, match='None of the 3 scans'):
    text_embeddings.read(f'{tmp_path}/{{id}}.npy', split, 2, 3)
  with pytest.raises(ValueError, match=r'\{patient\}'):
    text_embeddings.read(f'{tmp_path}/text.npy', split, 2, 3)
  (tmp_path / 'b.npy').write_bytes(b'nothing')
  with pytest.raises(ValueError, match='holds no token embeddings'):
    text_embeddings.read(f'{tmp_path}/{{id}}.npy', split, 2, 3)
