"""Laws of packed parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.training.packing import BLOCK, SMALLEST, VECTOR, Packing

SHAPES = {
  'a/kernel': (3, 3, 20, 48),
  'a/bias': (48,),
  'wide/kernel': (SMALLEST, 100),
  'large/kernel': (150, BLOCK + 1),
  'narrow/kernel': (500, SMALLEST - 1),
  'critic/kernel': (32, 32),
  'scale': (),
}


@pytest.fixture(scope='module')
def flat():
  rng = np.random.default_rng(0)
  return {
    path: jnp.asarray(rng.normal(size=shape), 'float32')
    for path, shape in SHAPES.items()
  }


def test_a_mask_chooses_the_values_of_paths(flat):
  packing = Packing(flat, apart=('critic/',))
  chosen = ('a/kernel', 'narrow/kernel', 'critic/kernel')
  mask = packing.mask(lambda path: path in chosen)
  ones = packing.pack({path: jnp.ones_like(value) for path, value in flat.items()})
  kept = packing.unpack({name: ones[name] * mask[name] for name in ones})
  for path, value in kept.items():
    np.testing.assert_array_equal(value, float(path in chosen), err_msg=path)


def test_unpack_returns_every_parameter(flat):
  packing = Packing(flat)
  returned = packing.unpack(packing.pack(flat))
  assert returned.keys() == flat.keys()
  for path, value in flat.items():
    np.testing.assert_array_equal(returned[path], value)


def test_matrices_are_square_blocks_by_width_and_the_rest_is_one_vector(flat):
  packed = Packing(flat).pack(flat)
  assert {name: value.shape for name, value in packed.items()} == {
    # 180 rows in three blocks, 100 in two, 32 in one; 150 rows of 65 columns.
    'blocks of 64': (6, 64, 64),
    'blocks of 128': (2, 128, 128),
    VECTOR: (48 + 500 * (SMALLEST - 1) + 1,),
  }
  num = sum(value.size for value in flat.values())
  assert sum(int((value != 0).sum()) for value in packed.values()) == num


def test_what_is_apart_keeps_its_entry(flat):
  packing = Packing(flat, apart=('critic/',))
  packed = packing.pack(flat)
  np.testing.assert_array_equal(packed['critic/kernel'], flat['critic/kernel'])
  assert packed['blocks of 64'].shape[0] == 5
  assert packing.unpack(packed).keys() == flat.keys()


def test_gradient_of_packed_parameters_is_the_packed_gradient(flat):
  packing = Packing(flat)
  loss = lambda flat: sum(jnp.sum(jnp.sin(value)) for value in flat.values())
  found = jax.grad(lambda packed: loss(packing.unpack(packed)))(packing.pack(flat))
  expected = packing.pack(jax.grad(loss)(flat))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_equal_shapes_give_equal_packings(flat):
  turned = dict(reversed(flat.items()))
  a, b = Packing(flat).pack(flat), Packing(turned).pack(turned)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])
