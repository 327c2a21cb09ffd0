"""Laws of training on pairs: whose pairs, what is withheld, one patient one clip."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.data.store.visit_pairs import EntryPairs
from ldm_jax.diffusion import schedules
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.privacy import gradients
from ldm_jax.privacy.clipping import MARGIN
from ldm_jax.training import denoising_loss, pair_examples, patients
from ldm_jax.training.state import flatten

KEYS = jax.random.split(jax.random.key(0), 3)
# Patient 0 has the visits 0, 3, 4; patient 1 visit 1 alone; patient 2 visits 2 and 5.
SPLIT = types.SimpleNamespace(
  patient_entries=[np.array([0, 3, 4]), np.array([1]), np.array([2, 5])]
)
PAIRS = EntryPairs(
  np.array([0, 0, 3, 2]), np.array([3, 4, 4, 5]), np.array([1.0, 3, 2, 8])
)
RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(6, 2, 2, 3)).astype(np.float32)
CONDITIONS = np.arange(12, dtype=np.float32).reshape(6, 2)


def arrays(latents=LATENTS, **options):
  found = pair_examples.examples(SPLIT, latents, CONDITIONS, PAIRS, **options)
  return patients.patient_arrays(*found)


def test_every_pair_stands_with_its_patient_target_and_source_apart():
  found = arrays(singles=False)
  np.testing.assert_array_equal(found['present'], [[1, 1, 1], [0, 0, 0], [1, 0, 0]])
  np.testing.assert_array_equal(found['z'][0], LATENTS[[3, 4, 4]])
  own, years = found['attributes'][0, :, :2], found['attributes'][0, :, 2]
  np.testing.assert_array_equal(own, CONDITIONS[[3, 4, 4]])
  np.testing.assert_array_equal(years, [1, 3, 2])
  source = found['attributes'][0, :, 3:].reshape(3, 2, 2, 3)
  np.testing.assert_array_equal(source, LATENTS[[0, 0, 3]])
  np.testing.assert_array_equal(found['z'][2, 0], LATENTS[5])


def test_a_patient_without_pairs_gives_his_scans_without_a_source():
  found = arrays()
  np.testing.assert_array_equal(found['present'].sum(1), [3, 1, 1])
  np.testing.assert_array_equal(found['z'][1, 0], LATENTS[1])
  np.testing.assert_array_equal(found['attributes'][1, 0, :2], CONDITIONS[1])
  assert np.isnan(found['attributes'][1, 0, 2:]).all()


def test_both_directions_add_the_way_back_with_years_below_zero():
  found = arrays(both_directions=True)
  np.testing.assert_array_equal(found['present'].sum(1), [6, 1, 2])
  np.testing.assert_array_equal(sorted(found['attributes'][2, :2, 2]), [-8, 8])
  back = int(np.argmin(found['attributes'][2, :2, 2]))
  np.testing.assert_array_equal(found['z'][2, back], LATENTS[2])
  np.testing.assert_array_equal(found['attributes'][2, back, 3:], LATENTS[5].ravel())


def test_a_version_of_a_target_goes_with_the_same_version_of_its_source():
  versions = np.concatenate([LATENTS, LATENTS + 100])
  found = arrays(versions, singles=False)
  assert found['present'].sum() == 8
  far = found['present'] & (found['z'].min((2, 3, 4)) > 50)
  assert far.sum() == 4
  np.testing.assert_array_equal(found['attributes'][..., 3:].min(-1) > 50, far)


def test_a_cohort_without_pairs_is_refused():
  none = EntryPairs(*(column[:0] for column in PAIRS))
  with pytest.raises(
    ValueError, match=r'3 patients.*several visits.*adapt\.pairs\.use'
  ):
    pair_examples.examples(SPLIT, LATENTS, CONDITIONS, none)


def test_what_is_withheld_has_its_share_and_the_shares_are_disjoint():
  drops = pair_examples.Drops(0.05, 0.1, 0.2, column=1)
  keys = jax.random.split(jax.random.key(1), 20_000)
  drop, rows = pair_examples.withheld(drops, jnp.ones((20_000, 3)), keys)
  drop, hidden = np.asarray(drop), np.isnan(rows)
  assert not hidden[:, 0].any()
  np.testing.assert_array_equal(hidden[:, 1], hidden[:, 2])
  for both, share in (((1, 0), 0.05), ((0, 1), 0.1), ((1, 1), 0.2), ((0, 0), 0.65)):
    found = ((drop == both[0]) & (hidden[:, 1] == both[1])).mean()
    assert found == pytest.approx(share, abs=0.012), both


def test_a_model_of_changes_learns_a_source_s_change_in_its_unit():
  seen = {}

  class Watched:
    num_conditions = 1

    def apply(self, variables, z_t, t, attributes, drop):
      seen[name] = np.asarray(z_t)
      return jnp.sin(3 * z_t)

  def losses(z, name_of_case, **pairs):
    nonlocal name
    name = name_of_case
    values = {f'adapt.pairs.{key}': value for key, value in pairs.items()}
    shares = dict.fromkeys(('drop_condition', 'drop_source', 'drop_both'), 0.0)
    values |= {f'adapt.pairs.{key}': value for key, value in shares.items()}
    config = override(defaults(), {'adapt.pairs.use': True, **values})
    schedule = schedules.schedule('linear', 20, 1e-4, 0.2)
    loss = denoising_loss.configured_losses(config, Watched(), schedule, adapting=True)
    return loss({}, z, conditions, KEYS)

  name = ''
  sources, changes = LATENTS[:3], LATENTS[3:]
  known = np.where(np.arange(3)[:, None, None, None] < 2, sources, np.nan)
  pair = np.asarray(earlier_visit.join(np.array([1.0, 2, np.nan]), known))
  conditions = np.concatenate([CONDITIONS[:3, :1], pair], 1)
  # Two with a source; of the third, which has none, the scan itself is learned.
  later = jnp.asarray(np.where(np.isnan(known), changes, sources + 0.1 * changes))
  found = losses(later, 'change', change_scale=0.1)
  expected = losses(jnp.asarray(changes), 'scan')
  np.testing.assert_allclose(seen['change'], seen['scan'], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_text_is_hidden_without_the_pair_behind_it():
  keys = jax.random.split(jax.random.key(1), 4)
  hidden = np.isnan(denoising_loss.hide(jnp.ones((4, 6)), 2, 1.0, keys, 4))
  np.testing.assert_array_equal(hidden.any(0), [0, 0, 1, 1, 0, 0])


@pytest.fixture(scope='module')
def sums():
  """Clipped sums by both methods of three patients, and without the first."""
  config = override(defaults(), {'adapt.pairs.use': True})
  network = {'width': 12, 'num_blocks': 1, 'num_head_channels': 6, 'patch': (1, 1)}
  module = ConditionalDenoiser(
    (0, 0), 3, 3, {'width': 8, 'num_heads': 2}, network, 'dit', gap='number'
  )
  schedule = schedules.schedule('linear', 20, 1e-4, 0.2)
  losses = denoising_loss.configured_losses(config, module, schedule, adapting=True)
  loss = denoising_loss.patient_loss(losses, 2)
  inputs = LATENTS[:1], jnp.zeros(1, int), CONDITIONS[:1], jnp.zeros(1, bool)
  shapes = flatten(jax.eval_shape(module.init, KEYS[0], *inputs)['params'])
  shapes |= earlier_visit.added(module, LATENTS.shape[1:])
  rng = np.random.default_rng(0)
  params = {
    path: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32)
    for path, leaf in shapes.items()
  }
  examples = arrays()
  examples['z'][0] *= 50  # far above the clip norm

  def clipped(mask, method):
    return gradients.clipped_sum(
      lambda trained, example, key: loss(trained, {}, example, key),
      params,
      jax.tree.map(jnp.asarray, examples),
      mask,
      KEYS,
      0.5,
      microbatch=0,
      method=method,
    )

  compiled = jax.jit(clipped, static_argnums=1)
  everyone, fewer = np.array([True] * 3), np.array([False, True, True])
  masks = ((everyone, 'vmap'), (everyone, 'ghost'), (fewer, 'vmap'))
  return [compiled(*each) for each in masks]


def test_ghost_norms_give_the_same_sum_for_what_reads_pairs(sums):
  vmap, ghost, _ = sums
  assert sum(map(earlier_visit.is_paired, vmap)) == 2
  for path in vmap:
    np.testing.assert_allclose(ghost[path], vmap[path], atol=1e-5, err_msg=path)


def test_all_pairs_of_a_patient_together_move_the_sum_by_the_clip_norm(sums):
  everyone, _, fewer = sums
  moved = jax.tree.map(lambda a, b: float(jnp.sum((a - b) ** 2)), everyone, fewer)
  assert np.sqrt(sum(moved.values())) == pytest.approx(0.5, rel=2 * MARGIN)
  assert all(moved[path] > 0 for path in moved if earlier_visit.is_paired(path))
