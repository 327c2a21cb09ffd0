"""Laws of requests in the recipient's words."""

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.privacy import marginals
from ldm_jax.sharing import asking

SCHEMA = Schema(
  (
    Attribute('AGE', low=20, high=80, unit='years'),
    Attribute('SEX', 'categorical', categories=('F', 'M')),
    Attribute('BMI', low=10, high=50),
  )
)


def test_one_value_is_for_all_and_several_are_one_each():
  codes = asking.encode(SCHEMA, 2, {'age': 50, 'Sex': ['M', 'female']}, rest='unknown')
  assert np.array_equal(codes[:, 0], [0, 0]) and np.array_equal(codes[:, 1], [1, 0])
  assert np.isnan(codes[:, 2]).all()


def test_ranges_and_choices_stay_within_themselves_and_follow_the_seed():
  asked = {'AGE': '50:65', 'SEX': 'M|F'}
  codes = asking.encode(SCHEMA, 200, asked, seed=3)
  assert codes[:, 0].min() >= 0 and codes[:, 0].max() <= 0.5
  assert set(codes[:, 1]) == {0.0, 1.0}
  assert np.array_equal(codes, asking.encode(SCHEMA, 200, asked, seed=3))
  assert not np.array_equal(codes, asking.encode(SCHEMA, 200, asked, seed=4))


def test_naming_one_attribute_leaves_the_draws_of_all_others():
  free = asking.encode(SCHEMA, 5, {}, seed=1)
  named = asking.encode(SCHEMA, 5, {'SEX': 'M'}, seed=1)
  assert np.array_equal(free[:, ::2], named[:, ::2])


def test_the_prior_draws_what_is_not_named_where_there_is_one():
  prior = marginals.uniform(SCHEMA, 4)
  prior['shares'] = {'AGE': [0, 0, 0, 1, 0], 'SEX': [1, 0, 0], 'BMI': [0, 0, 0, 0, 1]}
  codes = asking.encode(SCHEMA, 9, {}, rest='prior', prior=prior)
  assert codes[:, 0].min() >= 0.5 and not codes[:, 1].any()
  assert np.isnan(codes[:, 2]).all()
  with pytest.raises(ValueError, match='came without a prior'):
    asking.encode(SCHEMA, 9, {}, rest='prior')


def test_samples_lend_whole_rows_and_what_they_leave_unknown_is_drawn():
  text = 'participant_id\tAGE\tSEX\ns0\t20\tF\ns1\t80\tM\n'
  samples = asking.requested(SCHEMA, text)
  assert samples[:, :2].tolist() == [[-1, 0], [1, 1]] and np.isnan(samples[:, 2]).all()
  codes = asking.encode(SCHEMA, 20, {}, rest='samples', samples=samples)
  assert {tuple(row) for row in codes[:, :2].tolist()} == {(-1.0, 0.0), (1.0, 1.0)}
  assert np.isfinite(codes).all() and len(set(codes[:, 2])) > 1
  named = asking.encode(SCHEMA, 20, {'SEX': 'F'}, rest='samples', samples=samples)
  assert np.array_equal(named[:, ::2], codes[:, ::2]) and not named[:, 1].any()
  with pytest.raises(ValueError, match='came without samples'):
    asking.encode(SCHEMA, 2, {}, rest='samples')
  assert asking.requested(SCHEMA, 'participant_id\tAGE\n') is None


@pytest.mark.parametrize(
  ('asked', 'says'),
  [
    ({'AGE': 81}, r'AGE = 81 lies outside .*AGE \(20 to 80 years\)'),
    ({'AGE': 'old'}, r"AGE = 'old' is not among"),
    ({'SEX': 'X'}, r'SEX \(F, M\)'),
    ({'AGES': 50}, r"no attribute 'AGES'. Did you mean AGE\?"),
    ({'AGE': [50, 60, 70]}, '3 values for 2 volumes'),
    ({'AGE': '70:60'}, 'is no range'),
  ],
)
def test_what_the_model_does_not_know_is_refused_with_what_it_knows(asked, says):
  with pytest.raises(ValueError, match=says):
    asking.encode(SCHEMA, 2, asked)


def test_a_table_is_read_by_its_columns_row_after_row(tmp_path):
  path = tmp_path / 'asked.csv'
  path.write_text('age,sex,note\n50,M,x\n,F,y\n')
  rows = asking.from_table(SCHEMA, path)
  codes = asking.of_rows(SCHEMA, rows, 3, rest='unknown')
  assert np.array_equal(codes[:, 1], [1, 0, 1]) and np.isnan(codes[1, 0])
  path.write_text('weight\n3\n')
  with pytest.raises(ValueError, match='expected a header with some of the attributes'):
    asking.from_table(SCHEMA, path)
