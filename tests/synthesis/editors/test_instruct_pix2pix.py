"""Laws of counterfactuals by a model of pairs: two scales, one direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.models.conditions.earlier_visit import join
from ldm_jax.synthesis.editors import instruct_pix2pix, registry
from ldm_jax.synthesis.editors.setting import Setting

SCHEMA = Schema(
  (
    Attribute('SEX', 'categorical', categories=('female', 'male')),
    Attribute('Age', low=20, high=100, unit='years'),
  )
)
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(2, 2, 4, 4, 3)).astype(np.float32)
OWN = np.array([[0, -0.5], [1, 0.2]], np.float32)
OLDER = OWN + np.array([[0, 0.25]], np.float32)  # by 10 years
SECTION = override(defaults(), {'adapt.pairs.use': True}).adapt.pairs
TIME = instruct_pix2pix.time_of(SECTION, SCHEMA)


def apply_denoiser(params, z_t, t, conditions, drop):
  """Steered by attributes and years unless dropped, by a source unless absent."""
  own, pair = conditions[:, :2], conditions[:, 2:]
  told = own @ params['w'] + pair[:, :1] / 10
  told = jnp.where(drop[:, None] | jnp.isnan(told), 0.0, told)
  source = jnp.nan_to_num(pair[:, 1:]).reshape(z_t.shape)
  shift = jnp.tanh(told).reshape(-1, 1, 1, 1, 3)
  return 0.4 * jnp.tanh(z_t - shift) + 0.3 * source * shift + 0.1 * source


PARAMS = {'w': RNG.normal(size=(2, 3)).astype(np.float32)}


def make(world, time=TIME, guidance=3.0, drift=None, **options):
  setting = Setting(
    apply_denoiser, world.schedule, 3, guidance=guidance, drift=drift, time=time
  )
  return registry.make('pairs', setting, **options)


@pytest.mark.parametrize('scales', [(7.5, 1.5), (1.0, 1.0), (1.0, 0.0)])
def test_guidance_is_the_formula_over_three_separate_calls(scales):
  z_t, t, pair = jnp.asarray(Z[::-1]), jnp.array([5, 9]), join(jnp.array([4.0, 7]), Z)
  full = jnp.concatenate([OLDER, pair], 1)
  none = full.at[:, 2:].set(jnp.nan)
  kept, dropped = jnp.zeros(2, bool), jnp.ones(2, bool)
  e_00, e_i0, e_ic = (
    apply_denoiser(PARAMS, z_t, t, *call)
    for call in ((none, dropped), (full, dropped), (full, kept))
  )
  scale, source_scale = scales
  expected = e_00 + source_scale * (e_i0 - e_00) + scale * (e_ic - e_i0)
  found = instruct_pix2pix.guided(apply_denoiser, PARAMS, OLDER, pair, *scales)(z_t, t)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  if scales == (1.0, 1.0):
    np.testing.assert_array_equal(found, e_ic)


def test_without_guidance_by_the_source_the_request_alone_is_exaggerated():
  z_t, t, pair = jnp.asarray(Z[::-1]), jnp.array([5, 9]), join(jnp.array([4.0, 7]), Z)
  full = jnp.concatenate([OLDER, pair], 1)
  e_i0, e_ic = (
    apply_denoiser(PARAMS, z_t, t, full, jnp.full(2, dropped))
    for dropped in (True, False)
  )
  found = instruct_pix2pix.guided(apply_denoiser, PARAMS, OLDER, pair, 3.0, None)(
    z_t, t
  )
  np.testing.assert_allclose(found, e_i0 + 3 * (e_ic - e_i0), rtol=1e-5, atol=1e-5)


def test_a_model_of_changes_adds_its_sample_to_the_source(world):
  options = {'guidance': 1.0, 'source_guidance': None}
  tenth = make(world, time=TIME._replace(change_scale=0.1), **options)
  found = tenth(PARAMS, Z, OWN, OLDER) - Z
  # The same network, noise and source: what is sampled is the same in another unit.
  sample = make(world, time=TIME, guidance=1.0, source_guidance=1)(
    PARAMS, Z, OWN, OLDER
  )
  np.testing.assert_allclose(found, 0.1 * sample, rtol=1e-3, atol=1e-4)
  keep = np.zeros((2, 2, 4, 4, 1), bool)
  keep[:, :, :2] = True
  held = tenth(PARAMS, Z, OWN, OLDER, keep)
  np.testing.assert_allclose(held[:, :, :2], Z[:, :, :2], atol=1e-5)
  np.testing.assert_allclose(held[:, :, 2:] - Z[:, :, 2:], found[:, :, 2:], atol=1e-5)


def test_the_years_are_those_between_the_two_ages():
  years = instruct_pix2pix.years_between(TIME, OWN, OLDER)
  np.testing.assert_allclose(years, 10, rtol=1e-5)
  unknown = OWN.copy()
  unknown[0, 1] = np.nan
  np.testing.assert_array_equal(
    np.isnan(instruct_pix2pix.years_between(TIME, unknown, OLDER)), [True, False]
  )


def test_source_request_and_guidance_change_the_result_and_noise_does_not(world):
  edit = make(world)
  first, again = (edit(PARAMS, Z, OWN, OLDER) for _ in range(2))
  np.testing.assert_array_equal(first, again)
  assert first.shape == Z.shape and jnp.isfinite(first).all()
  for other in (edit(PARAMS, -Z, OWN, OLDER), edit(PARAMS, Z, OWN, OWN)):
    assert jnp.abs(other - first).max() > 1e-3
  stronger = make(world, guidance=7.5)(PARAMS, Z, OWN, OLDER)
  assert jnp.abs(stronger - first).max() > 1e-3


def test_what_is_kept_stays_with_a_drift_too(world):
  keep = np.zeros((2, 2, 4, 4, 1), bool)
  keep[:, :, :2] = True
  edit = make(world, drift=0.2)
  found = edit(PARAMS, Z, OWN, OLDER, keep)
  np.testing.assert_allclose(found[:, :, :2], Z[:, :, :2], atol=1e-5)
  free = edit(PARAMS, Z, OWN, OLDER)
  assert jnp.abs(free - Z)[:, :, :2].max() > 0.1
  # Voxels never meet.
  np.testing.assert_allclose(found[:, :, 2:], free[:, :, 2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('num_draws', [1, 3])
def test_relative_to_no_change_no_change_returns_the_source(num_draws, world):
  options = {'guidance': 7.5, 'num_draws': num_draws}
  edit = make(world, relative=True, **options)
  # Up to the rounding of the latent's units.
  np.testing.assert_allclose(edit(PARAMS, Z, OWN, OWN), Z, rtol=1e-4, atol=1e-5)
  assert jnp.abs(make(world, **options)(PARAMS, Z, OWN, OWN) - Z).max() > 0.1
  plain = make(world, **options)
  change = plain(PARAMS, Z, OWN, OLDER) - plain(PARAMS, Z, OWN, OWN)
  found = edit(PARAMS, Z, OWN, OLDER)
  np.testing.assert_allclose(found, Z + change, rtol=1e-4, atol=1e-4)


def test_several_draws_are_the_mean_of_single_ones(world):
  def edited(key, num_draws=1):
    setting = Setting(apply_denoiser, world.schedule, 3, time=TIME, key=key)
    return registry.make('pairs', setting, num_draws=num_draws)(PARAMS, Z, OWN, OLDER)

  key = jax.random.key(5)
  first, second = edited(key), edited(jax.random.fold_in(key, 1))
  assert jnp.abs(first - second).max() > 0.01
  np.testing.assert_allclose(edited(key, 2), (first + second) / 2, rtol=1e-4, atol=1e-5)


def test_younger_is_refused_unless_it_was_learned(world):
  edit = make(world)
  with pytest.raises(ValueError, match=r'10 years younger.*both_directions=True'):
    edit(PARAMS, Z, OLDER, OWN)
  assert not edit.reverses
  both = make(world, time=TIME._replace(backwards=True))
  assert both.reverses and jnp.isfinite(both(PARAMS, Z, OLDER, OWN)).all()


def test_a_model_that_knows_no_pairs_is_refused(world):
  assert instruct_pix2pix.time_of(defaults().adapt.pairs, SCHEMA) is None
  with pytest.raises(ValueError, match=r'not trained on pairs.*adapt\.pairs\.use=True'):
    make(world, time=None)
  with pytest.raises(ValueError, match=r'source_guidance is 2.*change_scale'):
    make(world, time=TIME._replace(change_scale=0.1), source_guidance=2)
  with pytest.raises(ValueError, match=r'source_guidance is -1'):
    make(world, source_guidance=-1)
  with pytest.raises(ValueError, match=r'num_draws is 0'):
    make(world, num_draws=0)


def test_without_an_age_no_years_are_told():
  time = instruct_pix2pix.time_of(SECTION, Schema((SCHEMA['SEX'],)))
  assert time.column is None
  assert np.isnan(instruct_pix2pix.years_between(time, OWN, OLDER)).all()
