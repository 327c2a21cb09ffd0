"""Laws of the names of slices: devices, topologies, links; others are refused."""

import pytest

from ldm_jax.pipeline import slices


@pytest.mark.parametrize(
  ('name', 'topology', 'devices'),
  [
    ('v5p-128', 'v5p:4x4x4', 64),
    ('v4-8', 'v4:2x2x1', 4),
    ('v5e:4x4', 'v5e:4x4', 16),
    ('v5litepod-16', 'v5e:4x4', 16),
    ('v6e-256', 'v6e:16x16', 256),
    ('h100x8', 'h100:8', 8),
  ],
)
def test_a_name_gives_the_topology_and_its_devices(name, topology, devices):
  found = slices.parse(name)
  assert (found.topology, found.num_devices) == (topology, devices)


def test_a_host_is_no_larger_than_its_slice():
  assert slices.parse('v5p-128').chips_a_host == (2, 2, 1)
  assert slices.parse('v5e-8').chips_a_host == (2, 2, 1)
  assert slices.parse('v5e-1').chips_a_host == (1, 1, 1)


def test_messages_between_hosts_of_gpus_go_through_the_network():
  assert slices.parse('h100x8').link == slices.CHIPS['h100'].link
  assert slices.parse('h100x16').link == slices.CHIPS['h100'].network
  assert slices.parse('v5p-1024').link == slices.CHIPS['v5p'].link


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('v9-8', 'v5p'),
    ('h100', 'h100x8'),
    ('h100-8', 'h100x8'),
    ('v5px8', 'v5p-128'),
    ('v5p-12', 'v5p-128'),
    ('v5p-127', 'v5p-128'),
    ('v5p:4x4', 'v5p:4x4x4'),
    ('h100x0', 'no device'),
  ],
)
def test_what_is_no_slice_is_refused_with_those_that_are_known(name, told):
  with pytest.raises(ValueError, match=r'doctor\.topology') as caught:
    slices.parse(name)
  assert told in str(caught.value)
