"""Laws of what a stage works with: each part opened once, from the folder alone."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from ldm_jax.config.parsing import override
from ldm_jax.data.store import latents, store
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder
from tests import micro


def opened(root, **changes):
  return Run(override(micro.get_config(), changes), WorkFolder(root))


def cohort(**parts):
  return types.SimpleNamespace(**parts)


def test_a_cohort_is_opened_once_and_only_when_it_is_asked_for(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(
    store, 'open_split', lambda root, name, **_: calls.append(name) or cohort()
  )
  run = opened(tmp_path)
  assert not calls
  assert run.prepared is run.prepared
  assert calls == ['public', 'private', 'test'] == list(run.prepared)


def test_splits_are_those_that_the_autoencoder_learned_from(tmp_path):
  run, checked = opened(tmp_path), []
  vars(run)['prepared'] = {'public': cohort(check_spec=checked.append)}
  with pytest.raises(ValueError, match=r"'prepare' has not been run.*--stages=prepare"):
    run.splits  # noqa: B018
  run.work.restart('prepare', 'a')
  run.work.finish('prepare', 'a')
  assert run.splits is run.prepared and not checked
  # What another stage writes later is seen.
  run.work.write_json({'spec': 'x'}, 'checkpoints', 'autoencoder', 'preprocess.json')
  assert run.splits is run.prepared and checked == ['x']


def test_a_run_is_not_changed_in_place(tmp_path):
  with pytest.raises(dataclasses.FrozenInstanceError):
    opened(tmp_path).config = None


def test_keys_of_two_purposes_differ_and_own_seeds_move_only_their_own(tmp_path):
  words = lambda run, purpose: tuple(jax.random.key_data(run.key(purpose)).tolist())
  one, other = opened(tmp_path), opened(tmp_path, **{'sample.seed': 1})
  purposes = ('init', 'diffusion', 'adapt', 'sample', 'prior')
  assert len({words(one, purpose) for purpose in purposes}) == len(purposes)
  changed = [p for p in purposes if words(one, p) != words(other, p)]
  assert changed == ['sample']


def test_latents_are_in_units_of_the_public_statistics(tmp_path):
  run, split = opened(tmp_path), Keys('public', ['a', 'b'])
  with pytest.raises(ValueError, match='--stages=encode'):
    run.latents(split)
  run.work.restart('encode', 'e')
  statistics = {'mean': [1.0, -1.0], 'std': [0.5, 2.0]}
  run.work.write_json(statistics, 'checkpoints', 'encode', 'latent_statistics.json')
  run.work.finish('encode', 'e', tag='t')
  with pytest.raises(ValueError, match=r"no latents of the cohort 'public'"):
    run.latents(split)
  z = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
  latents.write(run.work.store, split, 't', z * (0.5, 2.0) + (1.0, -1.0))
  np.testing.assert_allclose(run.latents(split), z, atol=1e-6)


def test_copies_of_public_volumes_are_drawn_by_name_and_seed(tmp_path):
  volumes = np.random.default_rng(0).random((2, 4, 8, 8, 1)).astype(np.float32)
  split = cohort(volumes=lambda indices: volumes[indices])
  plain, moved = (
    opened(tmp_path),
    opened(tmp_path, **{'augment.copies': 1, 'augment.gamma': 0.3}),
  )
  indices = np.arange(2)
  assert np.array_equal(plain.public_volumes(split, indices, 'step', 0), volumes)
  once = moved.public_volumes(split, indices, 'step', 0)
  assert np.array_equal(once, moved.public_volumes(split, indices, 'step', 0))
  assert not np.array_equal(once, moved.public_volumes(split, indices, 'step', 1))
  assert not np.array_equal(once, volumes)


def test_a_sample_has_the_spacing_of_public_scans_or_of_the_config(tmp_path):
  private = Keys('private', 'ab', spacing_mm=np.array((7.391,) * 3))

  def spacing(splits, **changes):
    run = opened(tmp_path, **changes)
    vars(run)['prepared'] = splits
    run.work.restart('prepare', 'a')
    run.work.finish('prepare', 'a')
    return np.linalg.norm(run.sample_affine[:3, :3], axis=0)

  public = Keys('public', 'ab', spacing_mm=np.array((6.0, 2.0, 2.0)))
  with_both = spacing({'private': private, 'public': public})
  np.testing.assert_allclose(with_both, (6, 2, 2))
  alone = spacing({'private': private}, **{'data.preprocess.spacing_mm': (8, 3, 3)})
  np.testing.assert_allclose(alone, (8, 3, 3))
  with pytest.raises(ValueError, match=r'voxel size.*data.public is empty'):
    spacing({'private': private})


def test_a_network_beside_the_stages_is_learned_anew_when_its_mark_changes(tmp_path):
  run, learned = opened(tmp_path), []

  def learn():
    learned.append(1)
    return {'w': np.full(2, len(learned), np.float32)}

  for mark, count in (('a', 1), ('a', 1), ('b', 2)):
    assert run.learned_once('extra', mark, learn)['w'].tolist() == [count, count]
    assert len(learned) == count


class Keys:
  """As much of a split as latents are named by, and more if given."""

  def __init__(self, name, keys, **parts):
    self.name, self.keys = name, list(keys)
    vars(self).update(parts)

  def __len__(self):
    return len(self.keys)
