"""Laws of counterfactuals."""

import numpy as np
import pytest

from ldm_jax.evaluation import causal
from ldm_jax.synthesis.edit import counterfactual, shrink_keep
from ldm_jax.synthesis.editors import registry
from ldm_jax.synthesis.editors.setting import Setting

OWN = {'num_iterations', 'correct'}  # options of one editor


def run(
  world,
  new_attributes,
  keep=None,
  keep_detail=True,
  source=None,
  **options,
):
  own = {name: options.pop(name) for name in OWN & set(options)}
  setting = Setting(
    world.apply_denoiser,
    world.schedule,
    **({'num_steps': 15} | world.latents | options),
  )
  edit = registry.make('ddim', setting, **own)
  return counterfactual(
    edit,
    world,
    world.volumes if source is None else source,
    world.attributes,
    new_attributes,
    keep=keep,
    keep_detail=keep_detail,
  )


def changed(world):
  return np.where(np.isnan(world.attributes), 0.5, -world.attributes) + 0.3


@pytest.mark.parametrize('guidance', [1.0, 4.0])
@pytest.mark.parametrize('drift', [None, 0.2, np.array([0.1, -0.1, 0.2])], ids=str)
def test_a_null_intervention_returns_the_source(world, guidance, drift):
  result = run(world, world.attributes, guidance=guidance, drift=drift)
  np.testing.assert_allclose(result.volume, world.volumes, atol=1e-4)
  np.testing.assert_allclose(result.difference, 0, atol=1e-4)


def test_without_its_detail_a_null_intervention_returns_the_reconstruction(world):
  result = run(world, world.attributes, keep_detail=False)
  np.testing.assert_allclose(result.volume, result.reconstruction, atol=1e-4)
  assert np.abs(result.volume - world.volumes).mean() > 0.1


@pytest.mark.parametrize('editor', ['ddim', 'ddpm'])
def test_ten_null_interventions_return_the_autoencoders_own_reconstruction(
  world, editor
):
  """Above 40 dB, for a denoiser that was never trained; here above 60."""
  setting = Setting(
    world.apply_denoiser, world.schedule, 15, guidance=2.0, **world.latents
  )
  edit = registry.make(editor, setting)
  for keep_detail in (False, True):
    x = world.volumes
    for _ in range(10):
      result = counterfactual(
        edit,
        world,
        x,
        world.attributes,
        world.attributes,
        keep_detail=keep_detail,
      )
      x = result.volume
    reconstruction = world.decode(world.encode(world.volumes))
    expected = world.volumes if keep_detail else reconstruction
    assert causal.composition_psnr(expected, x, num_resamples=20)['value'] > 60


def test_corrections_are_what_makes_the_null_intervention_exact(world):
  def error(**options):
    result = run(world, world.attributes, **options)
    return np.abs(result.difference).max()

  assert error() < 1e-4 < error(correct=False, num_iterations=0)


def test_a_change_is_seen_and_a_stronger_guidance_exaggerates_it(world):
  weak = run(world, changed(world)).difference
  strong = run(world, changed(world), guidance=3.0).difference
  assert 0.003 < np.abs(weak).mean() < np.abs(strong).mean()
  null = run(world, changed(world), guidance=3.0, guide_from='null').difference
  assert np.abs(null - strong).max() > 1e-3


def test_an_example_changes_only_by_its_own_request(world):
  new = world.attributes.copy()
  new[1] = changed(world)[1]
  difference = run(world, new).difference
  np.testing.assert_allclose(difference[[0, 2]], 0, atol=1e-4)
  assert np.abs(difference[1]).max() > 0.01


def test_kept_voxels_stay_and_the_rest_may_change(world):
  keep = np.zeros(world.volumes.shape, bool)
  keep[:, :, :, :4] = True
  result = run(world, changed(world), keep=keep)
  np.testing.assert_array_equal(result.volume[keep], world.volumes[keep])
  assert np.abs(result.difference[~keep]).max() > 0.01
  everything = run(world, changed(world), keep=np.ones_like(keep))
  np.testing.assert_array_equal(everything.volume, world.volumes)


def test_a_latent_cell_is_kept_only_where_all_its_voxels_are():
  keep = np.ones((1, 2, 4, 4, 1), bool)
  keep[0, 1, 3, 0] = False
  small = np.asarray(shrink_keep(keep, (1, 2, 2, 2, 4)))
  expected = np.ones((1, 2, 2, 2, 1), bool)
  expected[0, 1, 1, 0] = False
  np.testing.assert_array_equal(small, expected)
  with pytest.raises(ValueError, match='divide'):
    shrink_keep(keep, (1, 2, 3, 3, 4))


def test_the_result_stays_in_the_range_of_volumes(world):
  volume = run(world, changed(world), guidance=9.0).volume
  assert volume.min() >= 0 and volume.max() <= 1


def test_a_drift_of_other_channels_is_refused(world):
  with pytest.raises(ValueError, match='3 channels'):
    run(world, world.attributes, drift=np.zeros(5))
