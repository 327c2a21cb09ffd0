"""Laws of the rules that sections share."""

import pytest

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.diffusion import drift, grid, process, schedules, solvers


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('adapt.method', 'dreambooth!'),
    ('adapt.init', 'random'),
    ('autoencoder.steps', 0),
    ('diffusion.batch_size', -1),
    ('diffusion.learning_rate', float('nan')),
    ('diffusion.learning_rate', float('inf')),
    ('sample.steps', 10**6),
    ('adapt.privacy.epsilon', 0.0),
    ('adapt.privacy.epsilon', float('inf')),
    ('adapt.privacy.epsilon', float('nan')),
    ('adapt.privacy.delta', 1.0),
    ('adapt.privacy.clip_norm', 0.0),
    ('adapt.privacy.chunk_size', 0),
    ('adapt.pairs.gap', 'months'),
    ('adapt.pairs.min_years', -1.0),
    ('adapt.pairs.max_years', -1.0),
    ('adapt.pairs.drop_both', 0.95),
    ('counterfactual.editor', 'pairs'),
  ],
)
def test_a_check_names_the_key_what_came_and_what_is_required(key, value):
  config = parsing.override(defaults(), {key: value})
  with pytest.raises(ValueError) as error:
    checks.check(config)
  assert f'config.{key} is {value!r}' in str(error.value)
  assert 'must be' in str(error.value) and f'--config.{key}=' in str(error.value)


def test_the_choices_of_the_diffusion_are_those_that_its_room_offers():
  offered = {
    'diffusion.schedule.name': schedules.NAMES,
    'diffusion.prediction': process.PREDICTIONS,
    'sample.solver': solvers.SOLVERS,
    'sample.spacing': grid.SPACINGS,
    'adapt.drift.variant': drift.VARIANTS,
    'adapt.drift.target': drift.TARGETS,
  }
  for key, names in offered.items():
    assert checks.CHOICES[key] == names


def test_the_defaults_pass_the_checks_with_and_without_privacy():
  checks.check(defaults())
  checks.check(parsing.override(defaults(), {'adapt.privacy': None}))


@pytest.mark.parametrize('key', checks.POSITIVE)
def test_a_number_that_must_be_positive_is_refused_at_zero(key, refused):
  refused({key: '0'}, key)


@pytest.mark.parametrize('key', sorted(checks.CHOICES))
def test_a_choice_takes_no_other_name_and_lists_those_there_are(key, refused):
  message = refused({key: 'nonsense'}, key)
  assert all(name in message for name in checks.CHOICES[key])


def test_an_address_in_place_of_a_path_is_refused_in_any_section():
  config = parsing.override(defaults(), {'ledger.path': 'gs://bucket/ledger'})
  with pytest.raises(ValueError, match=r'config\.ledger\.path .*Mount'):
    checks.check(config)
