"""Laws of the traffic of a compiled program: bytes, loops, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.pipeline import read_hlo
from ldm_jax.training.mesh import EXAMPLES, make_mesh

X = jnp.ones((256, 256))
SIZE = X.size * 4


def of(function, *arguments, devices=1):
  text = jax.jit(function).lower(*arguments).compile().as_text()
  return read_hlo.traffic(text, devices)


def test_arrays_and_tuples_have_the_bytes_of_their_elements():
  assert read_hlo.num_bytes('f32[8,16]{1,0}') == 512
  assert read_hlo.num_bytes('(bf16[3]{0}, pred[], s4[2], token[])') == 6 + 1 + 1
  assert read_hlo.num_bytes('f8e4m3fn[5]') == 5


def test_a_product_reads_its_factors_and_writes_its_result():
  assert of(jnp.matmul, X, X).num_bytes == pytest.approx(3 * SIZE, rel=0.4)


def test_a_loop_moves_as_much_as_its_passes_written_out():
  stacked = jnp.ones((6, 256, 256))

  def looped(x, stacked):
    return jax.lax.scan(lambda c, y: (jnp.sin(c @ y), None), x, stacked)[0]

  def written_out(x, stacked):
    for y in stacked:
      x = jnp.sin(x @ y)
    return x

  once = of(lambda x, y: jnp.sin(x @ y), X, X).num_bytes
  found = of(looped, X, stacked).num_bytes
  assert found == pytest.approx(of(written_out, X, stacked).num_bytes, rel=0.5)
  assert 4 * once < found < 9 * once, 'a pass reads its slice, not all of them'


def test_messages_are_counted_with_the_bytes_that_leave_a_device():
  mesh = make_mesh(4)
  total = jax.shard_map(
    lambda x: jax.lax.psum(x, ('data', 'fsdp')),
    mesh=mesh,
    in_specs=EXAMPLES,
    out_specs=P(),
  )
  x = jax.device_put(np.ones((4, 1000), np.float32), NamedSharding(mesh, EXAMPLES))
  found = of(total, x, devices=4).collectives
  assert set(found) == {'all-reduce'}
  assert found['all-reduce'] == {'count': 1, 'bytes': 4000, 'sent': 2 * 0.75 * 4000}


def test_a_gather_sends_each_part_to_all_others():
  mesh = make_mesh(2, 2)
  parts = NamedSharding(mesh, P('fsdp'))
  whole = jax.jit(lambda x: 2 * x, out_shardings=NamedSharding(mesh, P()))
  x = jax.device_put(np.ones(1000, np.float32), parts)
  found = read_hlo.traffic(whole.lower(x).compile().as_text(), 4).collectives
  assert found['all-gather'] == {'count': 1, 'bytes': 4000, 'sent': 2000}


def test_messages_in_a_loop_are_sent_at_each_pass():
  text = """HloModule m
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %r = f32[8]{0} all-reduce(%x), replica_groups=[2,2]<=[4], to_apply=%add
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %r)
}
ENTRY %main (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  ROOT %w = (s32[], f32[8]{0}) while(%a), condition=%c, body=%body, TRIPS
}
"""
  text = text.replace('TRIPS', 'backend_config={"known_trip_count":{"n":"7"}}')
  found = read_hlo.traffic(text, 4).collectives['all-reduce']
  assert found == {'count': 7, 'bytes': 7 * 32, 'sent': 7 * 32}


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match='ENTRY'):
    read_hlo.traffic('nothing', 1)
