"""Laws of reading pairs: step 0 is the pre-trained network, whatever the source."""

import jax
import numpy as np
import pytest

from ldm_jax.models.conditions import earlier_visit
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.training.state import flatten, unflatten

UNET = {
  'channels': (8,),
  'num_res_blocks': 1,
  'norm_groups': 4,
  'num_head_channels': 8,
  'kernels': (1, 3, 3),
  'strides': (),
}
CASES = {
  'unet': ('unet', UNET, ('attention',), 'number'),
  'daum24': (
    'daum24',
    {**UNET, 'num_heads': 1, 'attention_levels': False},
    ('embedding', 'channels'),
    'none',
  ),
  'dit': (
    'dit',
    {'width': 12, 'num_blocks': 1, 'num_head_channels': 6},
    ('attention', 'embedding'),
    'bin',
  ),
}
RNG = np.random.default_rng(0)
Z_T, SOURCE = RNG.normal(size=(2, 3, 2, 4, 6, 2)).astype(np.float32)
T = np.array([1, 20, 140])
ATTRIBUTES = np.array([[0.5, 1], [np.nan, 0], [-1, 1]], np.float32)
YEARS = np.array([3.0, 12.0, 7.0])
KEEP, DROP = np.zeros(3, bool), np.ones(3, bool)


def with_pair(years, source):
  return np.concatenate([ATTRIBUTES, earlier_visit.join(years, source)], 1)


@pytest.fixture(scope='module', params=CASES)
def network(request):
  """(apply(params, attributes, drop), parameters of the network, those for pairs)."""
  kind, options, by, gap = CASES[request.param]
  module = ConditionalDenoiser(
    (0, 2), 2, 2, {'width': 8, 'num_heads': 2}, options, kind, by, gap=gap
  )
  shapes = jax.eval_shape(module.init, jax.random.key(0), Z_T, T, ATTRIBUTES, KEEP)
  rng = np.random.default_rng(1)
  own = {
    path: rng.normal(0, 0.2, leaf.shape).astype(np.float32)
    for path, leaf in flatten(shapes['params']).items()
  }

  @jax.jit
  def apply(params, attributes, drop):
    return module.apply({'params': unflatten(params)}, Z_T, T, attributes, drop)

  return apply, own, earlier_visit.added(module, Z_T.shape[1:]), gap


def test_a_network_that_begins_to_read_pairs_is_the_old_one_bit_for_bit(network):
  """Whatever source and years, and without a pair; before training a zero is added."""
  apply, own, added, _ = network
  assert all(earlier_visit.is_paired(path) for path in added)
  assert not any(earlier_visit.is_paired(path) for path in own)
  old = apply(own, ATTRIBUTES, KEEP)
  for conditions in (with_pair(YEARS, 9 * SOURCE), ATTRIBUTES):
    np.testing.assert_array_equal(apply({**own, **added}, conditions, KEEP), old)


def test_once_trained_it_reads_the_source_and_the_years_unless_dropped(network):
  apply, own, added, gap = network
  rng = np.random.default_rng(2)
  moved = {path: rng.normal(size=leaf.shape) for path, leaf in added.items()}
  params = {**own, **{path: leaf.astype(np.float32) for path, leaf in moved.items()}}

  def change(conditions, drop=KEEP, other=None):
    other = with_pair(YEARS, SOURCE) if other is None else other
    return np.abs(apply(params, conditions, drop) - apply(params, other, drop)).max()

  absent, unknown = np.full_like(SOURCE, np.nan), np.full(3, np.nan)
  assert change(with_pair(YEARS, -SOURCE)) > 1e-3
  assert change(with_pair(YEARS, -SOURCE), DROP) > 1e-3  # the source is not dropped
  told = change(with_pair(unknown, SOURCE))
  assert told == 0 if gap == 'none' else told > 1e-3
  assert change(with_pair(unknown, SOURCE), DROP) == 0  # the years are, with the rest
  # Neither there: the ordinary network.
  nothing = apply(params, with_pair(unknown, absent), KEEP)
  np.testing.assert_array_equal(nothing, apply(params, ATTRIBUTES, KEEP))


@pytest.mark.parametrize('case', CASES)
def test_a_network_of_changes_reads_the_source_where_it_used_to_read_a_scan(case):
  kind, options, by, gap = CASES[case]
  conditioner = {'width': 8, 'num_heads': 2}
  scans, changes = (
    ConditionalDenoiser(
      (0, 2), 2, 2, conditioner, options, kind, by, gap=gap, of_changes=of_changes
    )
    for of_changes in (False, True)
  )
  shapes = jax.eval_shape(scans.init, jax.random.key(0), Z_T, T, ATTRIBUTES, KEEP)
  rng = np.random.default_rng(1)
  params = {
    path: rng.normal(0, 0.2, leaf.shape).astype(np.float32)
    for path, leaf in {
      **flatten(shapes['params']),
      **earlier_visit.added(scans, Z_T.shape[1:]),
    }.items()
  }

  variables = {'params': unflatten(params)}
  of_scans, of_changes = jax.jit(scans.apply), jax.jit(changes.apply)

  def apply(compiled, z_t, conditions):
    return compiled(variables, z_t, T, conditions, KEEP)

  found = apply(of_changes, Z_T, with_pair(YEARS, SOURCE))
  swapped = apply(of_scans, SOURCE, with_pair(YEARS, Z_T))
  np.testing.assert_allclose(found, swapped, rtol=1e-5, atol=1e-5)
  absent = with_pair(np.full(3, np.nan), np.full_like(SOURCE, np.nan))
  alone = apply(of_changes, Z_T, absent)
  expected = apply(of_scans, Z_T, absent)
  np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', ['number', 'bin'])
def test_no_years_are_zero_and_the_way_back_is_the_opposite(kind):
  features = earlier_visit.gap_features(np.array([0.0, np.nan, 4.0, -4.0, 11.0]), kind)
  assert not features[:2].any()
  np.testing.assert_array_equal(features[2], -features[3])
  assert np.abs(features[4] - features[2]).max() > 0.1


def test_bins_are_slight_moderate_and_significant_ageing():
  years = np.array([0.5, 4.99, 5.0, 10.0, 10.01, 30.0])  # ten years are still moderate
  found = np.argmax(earlier_visit.gap_features(years, 'bin'), -1)
  np.testing.assert_array_equal(found, [0, 0, 1, 1, 2, 2])


def test_an_unknown_kind_of_gap_is_refused():
  with pytest.raises(ValueError, match=r"'months'.*adapt\.pairs\.gap"):
    earlier_visit.gap_features(np.ones(2), 'months')
