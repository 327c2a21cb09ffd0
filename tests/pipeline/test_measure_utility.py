"""Laws of the scans of utility: what is refused, the arms, and what they read."""

import types

import numpy as np
import pytest

from ldm_jax.config.parsing import override
from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import utility
from ldm_jax.pipeline import measure_utility
from tests import micro

SCHEMA = Schema(
  (Attribute('age', low=20, high=100), Attribute('s', 'categorical', categories=(1, 2)))
)


def run(labelled=('public', 'private', 'test'), others=(), **flags):
  config = override(micro.get_config(), {'evaluate.utility.use': True, **flags})
  prepared = {
    name: types.SimpleNamespace(is_labelled=name in labelled)
    for name in (*labelled, *others)
  }
  return types.SimpleNamespace(config=config, prepared=prepared, schema=SCHEMA)


def test_cohorts_that_cannot_tell_of_use_are_refused_before_anything_is_trained():
  measure_utility.check(run(**{'evaluate.utility.attributes': ('age',)}))
  measure_utility.check(run((), ('public',), **{'evaluate.utility.use': False}))
  measure_utility.check(run(('public', 'public_test')))
  for wrong, says in (
    (run(('public', 'private')), 'data.test'),
    (run(('public', 'private'), ('test',)), 'data.test has labels'),
    (run(('public', 'test'), ('private',)), 'data.private has labels'),
    (run(**{'evaluate.utility.attributes': ('s',)}), "names 's'"),
    (run(**{'evaluate.utility.attributes': ('height',)}), 'attributes age'),
  ):
    with pytest.raises(ValueError, match=says):
      measure_utility.check(wrong)


def test_a_column_comes_with_the_units_of_its_code():
  section = run(**{'evaluate.utility.attributes': ('age',)}).config.evaluate.utility
  assert measure_utility._columns(section, SCHEMA) == {'age': (0, 40.0)}


def test_each_multiple_has_two_arms_and_the_larger_ones_hold_the_smaller():
  real, drawn = (
    utility.of_arrays(
      np.zeros((n, 1, 2, 2, 1)), np.zeros((n, 1, 2, 2)), np.zeros((n, 1))
    )
    for n in (3, 8)
  )
  arms = measure_utility._arms(real, drawn, (1.0, 2.5))
  sizes = {name: [source.num for source in sources] for name, sources in arms.items()}
  assert sizes == {
    **{'real': [3], 'synthetic': [3], 'both': [3, 3]},
    **{'synthetic_2.5x': [8], 'both_2.5x': [3, 8]},
  }
  assert arms['both'][0] is real and arms['synthetic'][0].take is drawn.take


def test_every_figure_and_every_difference_says_what_it_read():
  figure = {'value': 1.0}
  reads = {'real': ('test', 'private'), 'synthetic': ('test',)}
  content = measure_utility._marked(
    {
      'real': {'dice': figure, 'mae': {'age': figure}},
      'synthetic': {'dice': figure},
      'minus_real': {'synthetic': {'dice': figure}},
    },
    reads,
    ('private', 'test'),
  )
  assert content['real']['mae']['age'] == figure | roles.mark('test', 'private')
  assert content['synthetic']['dice'] == figure | roles.mark('test')
  difference = content['minus_real']['synthetic']['dice']
  assert difference == figure | roles.mark('private', 'test')
  assert all(
    part['dice']['internal'] for part in (content['real'], content['synthetic'])
  )
