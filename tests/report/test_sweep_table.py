"""Laws of the table of a sweep: rows, means, intervals and paired differences."""

import json

import numpy as np
import pytest
from scipy import stats

from ldm_jax.report import sweep_table

METRICS = {
  'frechet': {'value': 2.5, 'low': 2.0, 'high': 3.0, 'n_real': 8, 'internal': True},
  'control': {'LV': {'pearson_r': 0.9, 'pearson_r_low': 0.8, 'pearson_r_high': 0.95}},
  'baseline_real_real': None,
}


def test_the_table_has_a_row_an_arm_with_its_intervals(tmp_path):
  (tmp_path / 'metrics.json').write_text(json.dumps(METRICS))
  (tmp_path / 'privacy.json').write_text(json.dumps({'epsilon': 'inf'}))
  columns = {'arm': sweep_table.figures(tmp_path), 'other': {}}
  found = sweep_table.write(
    tmp_path, columns, {'arm': {'a': 1}, 'other': {'a': 2}}, 'Note.'
  )
  assert sweep_table.INTERNAL not in found
  assert found.splitlines()[:4] == [
    '| arm | runs | epsilon | frechet | control.LV.pearson_r |',
    '| --- | --- | --- | --- | --- |',
    '| arm | 1 | inf | 2.5 [2, 3] | 0.9 [0.8, 0.95] |',
    '| other | 1 |  |  |  |',
  ]
  assert found.endswith('Note.\n')
  assert 'frechet.low,2.0,' in (tmp_path / 'sweep.csv').read_text()


def test_what_is_internal_in_an_arm_is_marked_in_the_table(tmp_path):
  (tmp_path / 'metrics.json').write_text(
    json.dumps({**METRICS, 'kid': {'value': 1.0}, 'causal': {'null': {'internal': 1}}})
  )
  names = sweep_table.internal(tmp_path)
  assert {'frechet', 'frechet.low'} <= names
  assert not {'kid', 'control.LV.pearson_r'} & names
  columns = {'arm': sweep_table.figures(tmp_path)}
  found = sweep_table.write(tmp_path, columns, {'arm': {'a': 1}}, '', marked=names)
  head = '| arm | runs | frechet (internal) | control.LV.pearson_r | kid |'
  assert found.splitlines()[0] == head and sweep_table.INTERNAL in found
  assert 'frechet' in json.loads((tmp_path / 'sweep.json').read_text())['internal']


def test_runs_that_differ_in_seeds_are_one_row_with_their_mean_and_interval(tmp_path):
  arms = {
    f'{name},epsilon=3,seed={seed}': {
      'b': name,
      'adapt.seed': seed,
      'sample.seed': seed,
    }
    for name in ('x', 'y')
    for seed in range(3)
  }
  values = {name: float(number) for number, name in enumerate(arms)}
  columns = {name: {'frechet': value} for name, value in values.items()}
  found = sweep_table.write(tmp_path, columns, arms, '').splitlines()
  half = stats.t.ppf(0.975, 2) / np.sqrt(3)  # the deviation of 0, 1, 2 is 1
  assert found[2] == f'| x,epsilon=3 | 3 | 1 [{1 - half:.4g}, {1 + half:.4g}] |'
  assert found[3].startswith('| y,epsilon=3 | 3 | 4 [')
  rows = json.loads((tmp_path / 'sweep.json').read_text())['rows']
  assert [row['runs'] for row in rows] == [3, 3]
  assert rows[0]['figures']['frechet']['values'] == [0.0, 1.0, 2.0]


def test_an_addition_is_compared_with_the_arm_without_it_seed_by_seed(tmp_path):
  arms = {
    f'{name},seed={seed}': {'adapt.drift.value': value, 'adapt.seed': seed}
    for name, value in (('x', 0.0), ('x+drift', 0.1), ('y+drift', 0.2))
    for seed in range(3)
  }
  # Repeats differ far more than what the drift takes off, which is 1, 2 and 3.
  values = [10.0, 50.0, 90.0, 9.0, 48.0, 87.0, 0.0, 0.0, 0.0]
  columns = {name: {'frechet': v} for name, v in zip(arms, values, strict=True)}
  text = sweep_table.write(tmp_path, columns, arms, '')
  (gained,) = json.loads((tmp_path / 'sweep.json').read_text())['gains']
  assert gained['arm'] == 'x+drift'
  figure = gained['figures']['frechet']
  half = stats.t.ppf(0.975, 2) / np.sqrt(3)
  assert figure['values'] == [1.0, 2.0, 3.0]
  assert figure['low'] == pytest.approx(2 - half)
  assert figure['high'] == pytest.approx(2 + half)
  assert f'| x+drift | 3 | 2 [{2 - half:.4g}, {2 + half:.4g}] |' in text


def test_a_table_of_unfinished_arms_says_so_below_the_banner(tmp_path):
  arms = {'a': {'x': 1}, 'b': {'x': 2}}
  text = sweep_table.write(tmp_path, {'a': {'kid': 1.0}}, arms, 'Note.', 'Careful')
  assert text.startswith('> **Careful**\n\n| arm |')
  assert '1 of 2 arms have been run.' in text
  assert json.loads((tmp_path / 'sweep.json').read_text())['banner'] == 'Careful'


@pytest.mark.parametrize(
  ('name', 'partner'),
  [('x+y+z,seed=0', 'x+y,seed=0'), ('x+y', 'x'), ('x,epsilon=1', 'x,epsilon=1')],
)
def test_the_partner_of_an_arm_lacks_one_addition(name, partner):
  assert sweep_table.partner(name) == partner
