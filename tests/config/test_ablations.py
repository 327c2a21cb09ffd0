"""Laws of the arms that configs share."""

import pytest

from ldm_jax.config import ablations, checks, parsing, presets
from ldm_jax.config.defaults import defaults

GROUPS = {
  'noise': ablations.lower_noise(1e-3, num_draws=4, num_bands=2, seeds=(0, 1)),
  'drift': ablations.drift(ablations.FITS, seeds=(0, 1)),
  'private_drift': ablations.private_drift(seeds=(0, 1)),
  'utility': ablations.utility(seeds=(0, 1)),
}


@pytest.mark.parametrize('group', list(GROUPS))
def test_every_arm_fits_the_default_config_and_passes_its_checks(group):
  for arm in GROUPS[group].values():
    checks.check(parsing.override(defaults(), arm))


@pytest.mark.parametrize('group', list(GROUPS))
def test_a_repeat_differs_in_its_seeds_alone(group):
  for name, arm in GROUPS[group].items():
    if name.endswith('seed=1'):
      twin = GROUPS[group][name.replace('seed=1', 'seed=0')]
      changed = {key for key in arm if arm[key] != twin[key]}
      assert changed == set(ablations.SEED_KEYS)


def test_a_drifted_arm_differs_from_its_twin_in_the_drift_alone():
  for name, arm in GROUPS['drift'].items():
    twin = GROUPS['drift'].get(name.replace('+drift', ''))
    assert all(
      key.startswith('adapt.drift.') for key in arm.keys() ^ twin.keys()
    ) and all(arm[key] == twin[key] for key in arm.keys() & twin.keys())


def test_arms_with_privacy_never_fix_the_noise_that_protects():
  for group in ('noise', 'private_drift', 'utility'):
    for arm in GROUPS[group].values():
      assert arm.get('adapt.privacy', arm.get('adapt.privacy.seed')) is None


def test_the_average_is_sampled_from_the_very_fine_tuning_without_it():
  arms = GROUPS['noise']
  for name, arm in arms.items():
    if name.startswith('plain+multiplicity+ema,'):
      twin = arms[name.replace('+ema', '')]
      changed = {key for key in arm if arm[key] != twin[key]}
      assert changed == {'sample.ema_decay'}


def test_without_privacy_a_rate_of_clipped_gradients_is_not_taken():
  for group in (ablations.pretraining(), ablations.utility().values()):
    plain = [arm for arm in group if arm.get('adapt.privacy', 0) is None]
    assert plain
    for arm in plain:
      config = defaults()
      presets.fine_tune_biases(config)
      config = parsing.override(config, arm)
      assert (config.adapt.method, config.adapt.optimizer) == ('full', 'adam')
      assert config.adapt.learning_rate != presets.BIASES['adapt.learning_rate']
