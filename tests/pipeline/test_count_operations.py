"""Laws of the count of operations: each product once, loops as often as they run."""

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.pipeline.count_operations import operations
from ldm_jax.training.mesh import EXAMPLES, make_mesh

A, B = jnp.ones((4, 8)), jnp.ones((8, 16))
PRODUCT = 2 * 4 * 8 * 16


def count(function, *arguments):
  return operations(jax.jit(function).trace(*arguments).jaxpr)


def test_a_product_of_matrices_takes_two_operations_for_each_pair():
  assert count(lambda a, b: a @ b, A, B) == PRODUCT
  assert count(lambda a, b: jnp.einsum('nij,nik->jk', a, b), *[jnp.ones((3, 4, 8))] * 2)


def test_a_convolution_takes_two_operations_for_each_tap():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  x, kernel = jnp.ones((2, 5, 6, 3)), jnp.ones((3, 3, 3, 7))
  assert count(convolve, x, kernel) == 2 * (2 * 5 * 6 * 7) * (3 * 3 * 3)


def test_a_loop_counts_as_often_as_it_runs_and_of_branches_the_larger_one():
  def looped(a, b):
    return jax.lax.scan(lambda c, _: (c, c @ b), a, length=5)

  assert count(looped, A, B) == 5 * PRODUCT

  def branched(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: (a @ b) @ b.T @ b, lambda: a @ b)

  assert count(branched, A, B) == 3 * PRODUCT


def test_the_gradient_takes_twice_as_many_and_a_checkpoint_once_more():
  loss = lambda a, b: jnp.sum((a @ b) ** 2)
  assert count(jax.grad(loss, (0, 1)), A, B) == 3 * PRODUCT
  again = jax.checkpoint(lambda a, b: jnp.sum((jnp.tanh(a @ b) @ b.T) ** 2))
  assert count(jax.grad(again, (0, 1)), A, B) > 6 * PRODUCT


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_inside_shard_map_a_device_does_its_own_rows(devices):
  mesh = make_mesh(devices)
  product = jax.shard_map(
    lambda a, b: a @ b,
    mesh=mesh,
    in_specs=(EXAMPLES, jax.sharding.PartitionSpec()),
    out_specs=EXAMPLES,
  )
  assert count(product, A, B) == PRODUCT / devices
