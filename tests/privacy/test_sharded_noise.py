"""Laws of the noise of several devices: that of one, each part made by one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.pipeline import read_hlo
from ldm_jax.privacy import noise, secret_key, sharded_noise
from ldm_jax.training.mesh import make_mesh

KEY, CLIP_NORM, SIZES = secret_key.new_noise_key(0), 0.5, (2003, (31, 64))
KINDS = {
  'independent': noise.Independent(1.3),
  'correlated': noise.Correlated(1.3, (0.8, 0.48, 0.36), 5),
}


def total():
  draw = np.random.default_rng(0)
  return [jnp.asarray(draw.normal(size=size), jnp.float32) for size in SIZES]


def program(kind, mesh):
  """(start, add) compiled for a mesh, and the sharding of the sum."""
  start, add, of_memory = sharded_noise.over_devices(kind, mesh)
  whole = NamedSharding(mesh, P())
  return jax.jit(start, out_shardings=of_memory), jax.jit(add), whole


def noisy_sums(kind, mesh, steps=4):
  start, add, whole = program(kind, mesh)
  summed = jax.device_put(total(), whole)
  memory, found = start(summed), []
  for step in range(steps):
    noisy, memory = add(summed, memory, KEY, jnp.int32(step), jnp.float32(CLIP_NORM))
    found.append(jax.tree.map(np.asarray, noisy))
  return found, memory


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize('shape', [(4, 1), (2, 2), (3, 1)])
def test_any_number_of_devices_adds_the_noise_of_one_bit_for_bit(kind, shape):
  one, _ = noisy_sums(kind, make_mesh(1))
  several, _ = noisy_sums(kind, make_mesh(*shape))
  jax.tree.map(np.testing.assert_array_equal, one, several)
  assert not np.array_equal(one[0][0], one[1][0])


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_no_device_makes_more_than_its_part_of_the_random_words(kind):
  size = 2003 + 31 * 64
  for count in (1, 4):
    mesh = make_mesh(count)
    start, add, whole = program(kind, mesh)
    summed = jax.device_put(total(), whole)
    arguments = summed, start(summed), KEY, jnp.int32(0), jnp.float32(CLIP_NORM)
    text = add.lower(*arguments).compile().as_text()
    words = [int(n) for n in re.findall(r'\bu32\[(\d+)\]', text)]
    assert max(words) == -(-size // count)


def test_the_noisy_sum_is_gathered_once_and_nothing_else_is_sent():
  start, add, whole = program(KINDS['independent'], make_mesh(4))
  summed = jax.device_put(total(), whole)
  arguments = summed, start(summed), KEY, jnp.int32(0), jnp.float32(CLIP_NORM)
  text = add.lower(*arguments).compile().as_text()
  moved = read_hlo.traffic(text, 4).collectives
  size = 4 * (-(-(2003 + 31 * 64) // 4)) * 4
  assert moved == {'all-gather': {'count': 1, 'bytes': size, 'sent': size * 3 / 4}}


def test_each_device_remembers_its_own_part_of_earlier_noise():
  mesh = make_mesh(4)
  _, memory = noisy_sums(KINDS['correlated'], mesh)
  size = -(-(2003 + 31 * 64) // 4)
  assert {shard.data.shape for shard in memory.addressable_shards} == {(2, size)}


def test_a_normal_follows_from_its_number_alone():
  whole = noise.normals(KEY, 3, 100)
  np.testing.assert_array_equal(noise.normals(KEY, 3, 40, first=60), whole[60:])
