"""Laws of volumes that are read when needed: few at a time, the same figures."""

import weakref

import numpy as np
import pytest
from ml_collections import ConfigDict

from ldm_jax import atomic
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import assess, frechet, image_similarity, streams, two_sample

SHAPE = (1, 8, 8)
MEASURES = (
  {'name': 'bright', 'kind': 'volume', 'classes': (1,), 'attributes': ('age',)},
)
SECTION = ConfigDict(
  {
    'measures': MEASURES,
    'labels': (0, 1),
    'num_bootstrap': 0,
    'only': ('ms_ssim', 'reconstruction', 'memorisation', 'control'),
    'two_sample': {'enabled': False},
    'groups': {'by': ()},
  }
)


class Cohort:
  """A split that counts how many volumes are asked for at once; none is kept."""

  def __init__(self, name, size):
    self.name, self.size, self.most = name, size, 0
    self.patients = np.arange(size)
    self.num_patients, self.spacing_mm = size, (1.0, 1.0, 1.0)
    self.attributes = np.zeros((size, 1), np.float32)

  def __len__(self):
    return self.size

  def volumes(self, rows):
    self.most = max(self.most, len(rows))
    phase = np.asarray(rows).reshape(-1, 1, 1, 1, 1) * 0.7
    voxels = np.arange(64).reshape(1, *SHAPE, 1)
    return (0.5 + 0.4 * np.sin(voxels * 0.3 + phase)).astype(np.float32)


class Samples(Cohort):
  """The same as an array on the disk."""

  def __getitem__(self, rows):
    return self.volumes(np.arange(self.size)[rows])


class Network:
  """Measures brightness, batch by batch."""

  measures, name, sha256 = True, 'brightness', ''

  def features(self, volumes):
    blocks = [np.asarray(volumes[i : i + 8]) for i in range(0, len(volumes), 8)]
    return np.concatenate([b.mean((1, 2, 4)).reshape(len(b), -1) for b in blocks])

  def labels(self, volumes):
    return (volumes[..., 0] > 0.5).astype(np.uint8)


def assessed(size):
  cohorts = {name: Cohort(name, size) for name in ('private', 'test')}
  volumes = Samples('samples', 2 * size)
  samples = {'volumes': volumes, 'requests': np.zeros((2 * size, 1), np.float32)}
  schema = Schema((Attribute('age', low=0, high=100),))
  figures, _ = assess.assess(
    cohorts, samples, Network(), lambda x: 0.9 * x, schema, SECTION, (1.0, 1.0, 1.0)
  )
  return figures, max(each.most for each in (*cohorts.values(), volumes))


def test_the_volumes_in_memory_do_not_grow_with_cohort_and_samples():
  figures, most = assessed(600)
  assert figures['control']['bright']['n'] == 1200
  assert figures['reconstruction']['psnr']['n'] == 600
  assert most <= streams.BLOCK
  assert assessed(300)[1] == most


def test_blocks_change_no_figure(monkeypatch):
  whole, _ = assessed(30)
  monkeypatch.setattr(streams, 'BLOCK', 7)
  monkeypatch.setattr(frechet, 'AT_ONCE', 11)
  parts, _ = assessed(30)
  for name in ('reconstruction', 'control', 'ms_ssim', 'memorisation'):
    assert parts[name] == whole[name]
  assert parts['kid']['value'] == pytest.approx(whole['kid']['value'], rel=1e-9)


def test_many_examples_are_paired_without_a_list_of_all_pairs(monkeypatch):
  monkeypatch.setattr(image_similarity, 'LISTED', 10)
  labels = np.repeat(np.arange(20), 3)
  first, second = image_similarity._pairs(labels, 50, 0)
  assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 50
  assert (labels[first] != labels[second]).all() and (first < second).all()


def test_of_many_volumes_the_classifier_sees_a_random_part(monkeypatch):
  seen = {}

  def compare(real, synthetic, patients, *rest):
    seen.update(real=real, synthetic=synthetic, patients=patients)
    return {'real_halves': {}}

  monkeypatch.setattr(two_sample, 'compare', compare)
  monkeypatch.setattr(two_sample, 'MOST', 20)
  cohort, section = Cohort('test', 50), ConfigDict({'two_sample': {}})
  section.num_bootstrap = 0
  real, few = streams.Stored(cohort), cohort.volumes(np.arange(10))
  samples = {'volumes': few}
  assess._told_apart(real, samples, cohort.patients, section, 3, {})
  assert len(seen['real']) == len(seen['patients']) == 20
  assert len(set(seen['patients'].tolist())) == 20
  np.testing.assert_array_equal(seen['synthetic'], few)
  np.testing.assert_array_equal(seen['real'], cohort.volumes(seen['patients']))


def test_what_is_written_in_parts_is_read_in_parts_and_is_an_ordinary_npz(tmp_path):
  alive, most = weakref.WeakSet(), []

  class Counted(np.ndarray):
    __hash__ = object.__hash__

  def parts():
    for number in range(100):
      part = np.full((4, 50, 50), number, np.float32).view(Counted)
      alive.add(part)
      most.append(len(alive))
      yield part

  path = tmp_path / 'a.npz'
  atomic.write_streamed(path, 'volumes', 400, parts(), names=np.array(['a', 'bc']))
  assert max(most) <= 3
  with np.load(path) as whole:
    assert whole['volumes'].shape == (400, 50, 50)
    np.testing.assert_array_equal(whole['volumes'][7], 1)
  found = atomic.map_arrays(path)
  assert isinstance(found['volumes'], np.memmap)
  np.testing.assert_array_equal(found['volumes'][396:], 99)
  assert found['names'].tolist() == ['a', 'bc']
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(Exception, match='damaged'):
    atomic.map_arrays(path)
