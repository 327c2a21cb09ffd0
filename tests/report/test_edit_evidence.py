"""Laws of the figures of counterfactuals in words."""

import inspect
import re

from ldm_jax.evaluation import against_truth, causal, forecasts
from ldm_jax.report import edit_evidence

FIGURE = {'value': 0.5, 'low': 0.4, 'high': 0.6, 'n': 3}


def test_every_figure_that_evaluation_computes_has_a_name_of_its_own():
  parts = re.findall(r'`(\w+)`', inspect.getdoc(causal.effectiveness))
  effects = [part for part in parts if part in edit_evidence.PARTS]
  assert set(effects) == set(edit_evidence.PARTS)
  paths = ['composition', 'composition_psnr', 'composition_10', 'composition_10_psnr']
  paths += ['reversibility', 'truth.sdedit', 'truth.reduction_to_sdedit']
  for kind in edit_evidence.EFFECTS:
    paths += [f'{kind}_LV_volume.{part}' for part in edit_evidence.PARTS]
  volumes = [[[0.0, 0.5]], [[0.0, 0.4]], [[0.1, 0.5]]]
  for name, found in (
    ('truth', against_truth.error_to_truth(*volumes, num_resamples=2)),
    ('outside', against_truth.change_outside(*volumes, num_resamples=2)),
  ):
    paths += [f'{name}.{figure}' for figure in found]
  for measure in ('psnr', 'ssim', 'distance'):
    paths += [f'longitudinal.{part}{measure}' for part in ('', 'unchanged_', 'gain_')]
  assert 'unchanged_{name}' in inspect.getsource(forecasts.prediction_quality)
  names = [edit_evidence.named(path)[0] for path in paths]
  assert len(set(names)) == len(names) > 25
  assert not [name for name in names if '_' in name or name.startswith('composition')]


def test_a_figure_without_a_value_is_told_and_an_unknown_one_keeps_its_path():
  none = {'value': None, 'low': None, 'high': None, 'n': 2}
  entry = {'effectiveness_LV_volume': {'pearson_r': none}, 'new': {'figure': FIGURE}}
  first, second = edit_evidence.soundness({**entry, 'internal': True})
  assert first['name'] == 'LV volume: correlation'
  assert first['cells'] == ['–', 'n = 2']
  assert second['name'] == 'new, figure' and second['internal']
