"""Laws of curves and scatter plots: what is drawn, and what is left out."""

import pathlib
import re

import numpy as np
import pytest

from ldm_jax.report import figures, plots


def test_a_scatter_needs_a_finite_pair():
  assert plots.scatter({'a': ([np.nan], [1.0])}) == {}
  (picture,) = plots.scatter({'a': ([1.0, np.nan], [1.0, 2.0])}).values()
  width, height = figures.png_size(picture)
  assert min(width, height) > 400


def test_stages_without_losses_have_no_curve_and_internal_ones_are_marked():
  assert plots.training_curves([{'stage': 'prepare', 'step': 1, 'ok': True}]) == {}
  events = [{'stage': 'adapt', 'step': 1, 'loss': 1.0, 'internal': True}]
  assert list(plots.training_curves(events)) == ['adapt: loss (internal)']


def test_a_step_logged_twice_counts_with_the_later_value():
  log = [{'stage': 'a', 'step': s, 'loss': v} for s, v in ((1, 9.0), (2, 3.0))]
  again = [*log, {'stage': 'a', 'step': 1, 'loss': 4.0}]
  replaced = [{**log[0], 'loss': 4.0}, log[1]]
  assert plots.training_curves(again) == plots.training_curves(replaced)
  assert plots.training_curves(again) != plots.training_curves(log)


def test_the_loss_is_drawn_before_other_metrics():
  events = [{'stage': 'a', 'step': 1, 'accuracy': 0.5, 'loss': 1.0, 'time': 2.0}]
  assert list(plots.training_curves(events)) == ['a: loss']


@pytest.mark.parametrize('curve', sorted(plots.DRIFT_CURVES))
def test_a_search_for_a_drift_is_drawn_in_the_order_of_its_grid(curve):
  found = {'search': 'grid', 'grid': [0.2, 0.0, 0.1], 'value': 0.1}
  drawn = plots.drift_search({**found, curve: [3.0, 1.0, 2.0]})
  ordered = {**found, 'grid': [0.0, 0.1, 0.2], curve: [1.0, 2.0, 3.0]}
  assert drawn == plots.drift_search(ordered) != plots.drift_search(found)


def test_a_search_without_a_grid_has_no_picture():
  assert plots.drift_search({'search': 'closed_form', 'value': 0.1}) is None


def test_the_trade_off_has_a_picture_of_the_profile_and_one_of_the_errors():
  curve = {
    'epsilon': [0.0, 1.0],
    'delta': [0.4, 1e-9],
    'false_alarms': [0.1, 0.5],
    'misses': [0.6, 0.2],
  }
  empty = {'epsilon': [], 'delta': [], 'false_alarms': [], 'misses': []}
  both = plots.trade_off({'add_or_remove_one': curve, 'substitute_one': curve})
  one = plots.trade_off({'add_or_remove_one': curve, 'substitute_one': empty})
  assert len(both) == len(one) == 2 and both != one
  assert plots.trade_off({}) == plots.trade_off({'substitute_one': empty}) == {}


def test_the_picture_of_a_plan_has_three_panels_side_by_side():
  chosen = {'batch_size': 64, 'noise_multiplier': 1.1, 'noise_to_signal': 2.0}
  planned = {
    'suggested': chosen,
    'num_patients': 500,
    'epsilon': 8.0,
    'delta': 1e-5,
    'steps': 100,
    'num_parameters': 10,
    'table': [chosen, {'batch_size': 128, 'noise_to_signal': 1.5}],
  }
  lines = {
    'spent': {1.1: [(10, 2.0), (100, 8.0), (1000, np.inf)]},
    'needed': {64: [(4.0, 2.0), (8.0, 1.1)]},
  }
  width, height = figures.png_size(plots.budget(planned, lines))
  assert width > 2.5 * height


def test_curves_are_drawn_in_one_module_by_one_library():
  package = pathlib.Path(plots.__file__).parent.parent
  drawing = re.compile(
    r'(?:import|from) (?:matplotlib\.(?:figure|pyplot)|plotly|bokeh|altair|seaborn)'
  )
  found = {
    path.relative_to(package).as_posix()
    for path in package.rglob('*.py')
    if drawing.search(path.read_text(encoding='utf-8'))
  }
  assert found == {'report/plots.py'}
