"""Figures of counterfactuals in words: metrics.json, `causal` -> rows of a table."""

import re
from collections.abc import Mapping

from ldm_jax.report import tables
from ldm_jax.report.wording import number

# Path of a figure -> (name, note); the groups of the path stand in both.
WORDS = {
  r'composition': (
    'Nothing asked: difference',
    'mean absolute difference to the source, of intensities from 0 to 1, when the edit '
    'asks for no change; 0 is perfect',
  ),
  r'composition_psnr': (
    'Nothing asked, in dB',
    'peak signal-to-noise ratio to what the autoencoder makes of the source, at most '
    '100; above 40 nobody sees a difference',
  ),
  r'composition_(\d+)': ('Nothing asked {0} times in a row: difference', ''),
  r'composition_(\d+)_psnr': ('Nothing asked {0} times in a row, in dB', ''),
  r'reversibility': (
    'There and back: difference',
    'to the source, after the edit and its opposite; 0 is perfect',
  ),
  r'truth\.error': (
    'Difference to the truth',
    'of the counterfactual to the true one, which a phantom knows; 0 is perfect',
  ),
  r'truth\.error_within': ('Difference to the truth, where the truth changes', ''),
  r'truth\.unchanged': (
    'Difference of the source to the truth',
    'the error of doing nothing',
  ),
  r'truth\.reduction': (
    'Share of that difference that is gone',
    '1 is perfect, 0 is no better than doing nothing, below 0 is worse',
  ),
  r'truth\.reduction_to_(\w+)': (
    'Share of the error of {0} that is gone',
    'of this baseline for the same change',
  ),
  r'truth\.(\w+)': ('Difference to the truth, of the baseline {0}', ''),
  r'outside\.change': (
    'Change where the truth has none',
    'mean absolute; 0 is perfect',
  ),
  r'outside\.share': (
    'Share of all change where the truth has none',
    '0 is perfect',
  ),
  r'longitudinal\.(psnr|ssim|distance)': (
    'Predicted visit, {0}',
    'of the predicted to the real later scan of a patient',
  ),
  r'longitudinal\.unchanged_(\w+)': (
    'Earlier visit, {0}',
    'of the earlier to the later scan: predicting that nothing happens',
  ),
  r'longitudinal\.gain_(\w+)': (
    'Gain of the prediction, {0}',
    'over predicting that nothing happens; above 0 is better',
  ),
}
PARTS = {
  'error': (
    'error',
    'mean absolute difference of measured and requested change, in the unit of the '
    'measure',
  ),
  'gain': ('gain', 'measured over requested change; 1 is perfect, 0 is no effect'),
  'pearson_r': (
    'correlation',
    'r of measured and requested changes; needs three patients and requests that '
    'differ',
  ),
  'direction': (
    'right direction',
    'share of the edits that change the measure as requested',
  ),
}
# Kind of an effect -> (what was measured, what its notes add).
EFFECTS = {
  'effectiveness': ('{0}', ''),
  'measurable': (
    '{0} in the true counterfactual',
    'what a perfect edit would score by this measurement',
  ),
  'longitudinal': (
    '{0} in the predicted visit',
    'against the change in the real later scan',
  ),
}
EFFECT = re.compile(rf'({"|".join(EFFECTS)})_(.+)\.({"|".join(PARTS)})')


def soundness(entry: Mapping) -> list[dict]:
  """Rows of `causal` of metrics.json; a figure that nobody named keeps its path."""
  rows = []
  for path, figure in tables.walk(entry):
    name, note = named(path)
    row = tables.figure_row(name, figure, note)
    row['cells'] = [row['cells'][0] or number(None), *row['cells'][1:]]
    rows.append(row)
  return rows


def named(path: str) -> tuple[str, str]:
  """Name and note of a figure, by its dotted path."""
  found = EFFECT.fullmatch(path)
  if found:
    kind, measure, part = found.groups()
    (what, added), (name, note) = EFFECTS[kind], PARTS[part]
    return f'{what.format(_words(measure))}: {name}', added or note
  for pattern, (name, note) in WORDS.items():
    found = re.fullmatch(pattern, path)
    if found:
      return name.format(*map(_words, found.groups())), note
  return _words(path).replace('.', ', '), ''


def _words(name):
  name = name.replace('_', ' ')
  return {'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'sdedit': 'SDEdit'}.get(name, name)
