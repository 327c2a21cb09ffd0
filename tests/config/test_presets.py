"""Laws of what configs share."""

import pytest

from ldm_jax.config import checks, presets
from ldm_jax.config.defaults import defaults


@pytest.mark.parametrize('preset', list(presets.LARGEST))
@pytest.mark.parametrize('num_private', [2, 29, 36, 72, 255, 256, 100000])
def test_numbers_of_patients_give_settings_that_pass_and_can_be_drawn(
  preset, num_private
):
  config = defaults()
  presets.use_numbers(config, preset, 100, num_private)
  checks.check(config)
  privacy = config.adapt.privacy
  assert privacy.batch_size <= max(1, num_private / 2)
  assert privacy.delta * num_private <= 0.1


def test_fewer_private_patients_never_take_more_or_larger_steps():
  found = []
  for num_private in (1000, 255, 63):
    config = defaults()
    presets.use_numbers(config, 'small', 100, num_private)
    found.append((config.adapt.steps, config.adapt.learning_rate))
  assert found == sorted(found, reverse=True) and len(set(found)) == 3


def test_without_private_patients_the_fine_tuning_stays_as_it_is():
  config, before = defaults(), defaults()
  chosen = presets.use_numbers(config, 'tiny', 5, 0)
  assert config.adapt == before.adapt and config.diffusion.batch_size == 4
  assert set(chosen) == {'autoencoder.batch_size', 'diffusion.batch_size'}


def test_the_cohorts_of_a_phantom_share_no_seed_and_only_the_public_one_its_site():
  config = defaults()
  numbers = {'public': 3, 'private': 2, 'test': 1}
  presets.use_phantom(config, 'phantom_brain', numbers)
  cohorts = [config.data[name].options for name in numbers]
  assert len({cohort.seed for cohort in cohorts}) == 3
  assert [cohort.site for cohort in cohorts] == ['public', 'private', 'private']
  assert config.data.measuring.layout == ''


def test_one_kernel_fits_the_levels_of_both_networks():
  config = defaults()
  presets.use_kernel(config, (3, 3, 3), (2, 2, 2), (32, 64))
  for model in (config.autoencoder.model, config.diffusion.model):
    assert len(model.kernels) == len(model.channels) == len(model.strides) + 1


def test_a_line_is_printed_once(capsys):
  presets.say_once('once and no more')
  presets.say_once('once and no more')
  assert capsys.readouterr().err == 'once and no more\n'
