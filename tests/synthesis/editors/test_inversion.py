"""Laws of the editors that invert; those that all editors share: test_registry."""

import numpy as np
import pytest

from ldm_jax.synthesis.editors import inversion
from ldm_jax.synthesis.editors.setting import Setting

Z = np.random.default_rng(2).normal(size=(3, 2, 4, 4, 3)).astype(np.float32)
NEW = np.array([[-0.6, 1], [-0.5, 1], [0.9, 0]], np.float32)


@pytest.fixture
def changed(world):
  """edit(maker, **options) -> mean change of the latents under other attributes."""

  def run(maker, **options):
    edit = maker(Setting(world.apply_denoiser, world.schedule, 6), **options)
    return np.abs(edit(world.params, Z, world.attributes, NEW) - Z).mean()

  return run


@pytest.mark.parametrize(
  'maker, gentle, strong',
  [
    (inversion.ddpm, {'skip': 0.8}, {'skip': 0.0}),
    (inversion.sdedit, {'strength': 0.2}, {'strength': 0.9}),
  ],
)
def test_fewer_steps_keep_more_of_the_source(changed, maker, gentle, strong):
  assert 0 < changed(maker, **gentle) < changed(maker, **strong)


@pytest.mark.parametrize(
  'maker, options, words',
  [
    (inversion.ddpm, {'skip': 1.0}, r'ddpm\.skip is 1\.0'),
    (inversion.sdedit, {'strength': 0.0}, r'sdedit\.strength is 0\.0'),
  ],
)
def test_impossible_shares_are_refused(world, maker, options, words):
  with pytest.raises(ValueError, match=words):
    maker(Setting(world.apply_denoiser, world.schedule, 6), **options)
