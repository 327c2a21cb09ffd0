"""Laws of the measuring network: what it measures, and of what."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.evaluation import measuring_network

LABELS = np.zeros((2, 3, 8, 8), np.uint8)
LABELS[0, :, 2:6, 2:6] = 1
LABELS[1, :, 1:7, 1:7] = 2
LABELS[1, :, 2:6, 2:6] = 1


class Threshold(nn.Module):
  """Classes 0 and 1 by intensity; its features are the mean."""

  channels = (1,)

  def __call__(self, x):
    return jnp.concatenate([0.5 - x, x - 0.5], -1)

  def features(self, x):
    return x.mean((1, 2, 3))

  def maps(self, x):
    return [x]


def test_sizes_are_those_of_the_classes_in_mm():
  measures = (
    {'name': 'cavity', 'kind': 'volume', 'classes': (1,), 'scale': 2.0},
    {'name': 'wall', 'kind': 'thickness', 'classes': (1, 2)},
    {'name': 'ratio', 'kind': 'width_ratio', 'classes': (1, 2)},
  )
  found = measuring_network.measure(measures, LABELS, (10.0, 2.0, 2.0))
  np.testing.assert_allclose(found['cavity'], 2 * 48 * 0.04)
  radii = np.sqrt(np.array([36, 16]) * 4 / np.pi)
  np.testing.assert_allclose(found['wall'], [0, radii[0] - radii[1]], atol=1e-9)
  np.testing.assert_allclose(found['ratio'], [1, 4 / 6])
  with pytest.raises(ValueError, match=r"'x' of kind 'area'.*thickness"):
    measuring_network.measure(
      [{'name': 'x', 'kind': 'area', 'classes': (1,)}], LABELS, (1.0, 1.0, 1.0)
    )


def test_the_request_of_a_measure_is_that_of_the_phase():
  entry = {'name': 'LV', 'attributes': ('LVESV', 'LVEDV'), 'by': 'ESED'}
  rows = [{'LVESV': 60, 'LVEDV': 150, 'ESED': phase} for phase in (0, 1)]
  rows.append({'LVEDV': 150, 'ESED': 0})
  vectors = np.stack([CARDIAC_SCHEMA.encode(row) for row in rows])
  found = measuring_network.requested(entry, CARDIAC_SCHEMA, vectors)
  np.testing.assert_allclose(found, [60, 150, np.nan], atol=1e-3)
  assert measuring_network.has_request(entry, CARDIAC_SCHEMA)
  for other in ({'name': 'LV'}, {'name': 'LV', 'attributes': ('LVESV', 'HEIGHT')}):
    assert not measuring_network.has_request(other, CARDIAC_SCHEMA)


def test_label_values_become_class_indices_and_others_background():
  labels = np.array([[0, 7, 3], [9, 3, 7]], np.uint8)
  found = measuring_network.classes_of(labels, (0, 3, 7))
  np.testing.assert_array_equal(found, [[0, 2, 1], [0, 1, 2]])


def test_augmentation_shifts_volume_and_classes_alike_and_keeps_the_background():
  x = (LABELS == 1).astype(np.float32)[..., None]
  for seed in range(5):
    changed, classes = measuring_network.augment(x, LABELS, np.random.default_rng(seed))
    assert changed.min() >= 0 and changed.max() <= 1
    np.testing.assert_array_equal(changed[..., 0] > 0, classes == 1)


def test_a_network_labels_and_describes_every_volume_whatever_the_batch():
  x = np.random.default_rng(0).random((5, 2, 4, 4, 1)).astype(np.float32)
  one, several = (
    measuring_network.MeasuringNetwork(Threshold(), {'w': np.zeros(1)}, size)
    for size in (1, 3)
  )
  np.testing.assert_array_equal(several.labels(x), x[..., 0] > 0.5)
  np.testing.assert_allclose(several.features(x)[:, 0], x.mean((1, 2, 3, 4)), rtol=1e-5)
  np.testing.assert_allclose(several.features(x), one.features(x), rtol=1e-6)
  assert several.distance(x, x).max() < 1e-6
  assert several.measures and several.sha256 == one.sha256


def test_pooled_latents_see_where_a_volume_changes():
  network = measuring_network.PooledLatents(lambda x: x, {'w': np.zeros(1)}, 2)
  x = np.zeros((2, 2, 4, 4, 1), np.float32)
  x[1, 0, :2, :2] = 1
  plain, corner = network.features(x)
  assert not network.measures and len(plain) == 2**3 + 1
  np.testing.assert_array_equal(plain, 0)
  np.testing.assert_array_equal(np.sort(corner[:8]), [0] * 7 + [1])
