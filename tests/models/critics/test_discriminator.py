"""The patch discriminator: patches, slices, scales, and examples by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.critics.discriminator import (
  PatchDiscriminator,
  hinge_of_fake,
  hinge_of_real,
)
from ldm_jax.models.critics.planes import slices, views

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (2, 6, 8, 8, 1))
VOLUMES = {'channels': (4, 8), 'kernels': (3, 3, 3), 'strides': (1, 2, 2)}
PLANES = {'channels': (4, 8), 'kernels': (3, 3), 'strides': (2, 2), 'planes': (0, 2)}


def judge(x, **options):
  module = PatchDiscriminator(**options)
  variables = module.init(KEY, x)
  return jax.jit(lambda x: module.apply(variables, x)), variables


@pytest.mark.parametrize(
  ('options', 'shapes'),
  [
    (VOLUMES, [(2, 6, 4, 4, 1)]),
    ({**VOLUMES, 'num_scales': 2}, [(2, 6, 4, 4, 1), (2, 3, 2, 2, 1)]),
    (PLANES, [(12, 4, 4, 1), (16, 3, 4, 1)]),
  ],
)
def test_every_patch_of_every_plane_and_scale_has_a_logit(options, shapes):
  found, _ = judge(X, **options)
  assert [logits.shape for logits in found(X)] == shapes


def test_images_are_judged_as_they_are():
  found, _ = judge(X[:, 0], channels=(4,), kernels=(3, 3), strides=())
  assert found(X[:, 0])[0].shape == (2, 8, 8, 1)


@pytest.mark.parametrize('options', [VOLUMES, PLANES])
def test_examples_do_not_know_each_other(options):
  found, _ = judge(X, **options)
  changed = found(X.at[1].set(0.5))
  for before, after in zip(found(X), changed, strict=True):
    half = len(before) // 2
    np.testing.assert_array_equal(before[:half], after[:half])
    assert jnp.abs(before[half:] - after[half:]).max() > 0


def test_slices_are_the_planes_of_the_volume():
  x = np.asarray(X)
  np.testing.assert_array_equal(slices(x, 0)[7], x[1, 1])
  np.testing.assert_array_equal(slices(x, 1)[8], x[1, :, 0])
  np.testing.assert_array_equal(slices(x, 2)[3], x[0, :, :, 3])


def test_planes_of_an_image_are_refused():
  with pytest.raises(ValueError, match='planes'):
    views(X[:, 0], (0,))
  with pytest.raises(ValueError, match='planes'):
    views(X, (3,))


def test_the_hinge_spares_what_is_judged_right_by_a_margin():
  logits = jnp.array([-3.0, -1.0, 0.0, 1.0, 3.0])
  np.testing.assert_allclose(hinge_of_real(logits), [4, 2, 1, 0, 0])
  np.testing.assert_allclose(hinge_of_fake(logits), [0, 0, 1, 2, 4])
