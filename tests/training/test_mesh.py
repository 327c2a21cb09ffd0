"""Laws of the mesh: what is split, what is whole, what is refused."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ldm_jax import processes
from ldm_jax.training.mesh import (
  check_divides,
  make_mesh,
  on_own_devices,
  own_rows,
  put_examples,
  put_state,
  state_shardings,
  stops,
)


@pytest.mark.parametrize(
  ('data', 'fsdp', 'shape'),
  [(-1, 1, (4, 1)), (-1, 2, (2, 2)), (-1, 4, (1, 4)), (1, 1, (1, 1)), (3, 1, (3, 1))],
)
def test_minus_one_takes_all_devices_that_are_left(data, fsdp, shape):
  assert tuple(make_mesh(data, fsdp).shape.values()) == shape


@pytest.mark.parametrize(('data', 'fsdp'), [(5, 1), (4, 2), (0, 1), (1, 0), (-1, 8)])
def test_more_devices_than_there_are_are_refused(data, fsdp):
  with pytest.raises(ValueError, match=r'config\.mesh .* there are 4'):
    make_mesh(data, fsdp)


def test_a_leaf_is_split_over_fsdp_along_its_largest_axis_that_divides():
  tree = {
    'kernel': np.zeros((3, 3, 4, 8)),
    'odd': np.zeros((3, 5)),
    'bias': np.zeros(6),
    'step': np.zeros(()),
  }
  found = state_shardings(make_mesh(2, 2), tree)
  assert found['kernel'].spec == P(None, None, None, 'fsdp')
  assert found['odd'].spec == P()
  assert found['bias'].spec == P('fsdp')
  assert found['step'].spec == P()
  assert {s.spec for s in jax.tree.leaves(state_shardings(make_mesh(4), tree))} == {P()}


def test_examples_are_split_over_all_devices_and_keep_their_order():
  mesh = make_mesh(2, 2)
  x = np.arange(16.0).reshape(8, 2)
  placed = put_examples(mesh, {'x': x})['x']
  np.testing.assert_array_equal(placed, x)
  assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 2)}
  assert len(placed.sharding.device_set) == 4


def test_a_batch_that_does_not_divide_is_refused_with_the_key_to_change():
  with pytest.raises(ValueError, match=r'batch of 6 .* 4 devices.*mesh\.data'):
    put_examples(make_mesh(4), {'x': np.zeros((6, 2))})
  with pytest.raises(ValueError, match=r'config\.adapt\.batch_size is 6'):
    check_divides(make_mesh(4), {'seed.batch_size': 8, 'adapt.batch_size': 6})
  check_divides(make_mesh(3), {'adapt.batch_size': 6})


def test_state_comes_to_rest_without_changing_a_bit():
  tree = {'w': jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)}
  placed = put_state(make_mesh(2, 2), tree)
  np.testing.assert_array_equal(placed['w'], tree['w'])
  assert {shard.data.shape for shard in placed['w'].addressable_shards} == {(4, 3)}


@pytest.mark.parametrize('num_rows', [4, 12])
def test_the_rows_of_all_processes_are_the_batch_each_once(monkeypatch, num_rows):
  devices = np.array([types.SimpleNamespace(process_index=i // 2) for i in range(4)])
  mesh = types.SimpleNamespace(devices=devices.reshape(2, 2), size=4)
  monkeypatch.setattr(processes, 'count', lambda: 2)
  found = []
  for number in (0, 1):
    monkeypatch.setattr(processes, 'number', lambda number=number: number)
    found.append(own_rows(mesh, num_rows))
  assert [len(rows) for rows in found] == [num_rows // 2] * 2
  np.testing.assert_array_equal(np.concatenate(found), np.arange(num_rows))


def test_what_a_process_does_alone_it_does_on_its_own_devices(monkeypatch):
  monkeypatch.setattr(processes, 'total', lambda: 2)
  monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[:2])
  assert on_own_devices({'data': -1, 'fsdp': 4}).shape == {'data': 1, 'fsdp': 2}
  with pytest.raises(ValueError, match='multiple of 4'):  # of both processes
    check_divides(on_own_devices({'data': -1, 'fsdp': 1}), {'diffusion.batch_size': 6})


def test_one_process_stops_for_its_own_signal_at_once():
  assert [stops(make_mesh())(number) for number in (0, 15)] == [0, 15]
