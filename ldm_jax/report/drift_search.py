"""The picture of a search for a drift: distances or losses over the grid, as PNG."""

import io

from matplotlib.figure import Figure

from ldm_jax.report.figures import ACCENT, MUTED, WARM

# Curve of a found drift -> (its name in the picture, colour).
CURVES = {
  'distance_sampling': ('L1 distance, drift of sampling alone', MUTED),
  'distance_training': ('L1 distance after a trial of training', ACCENT),
  'loss_difference': ('denoising loss less that without drift', ACCENT),
}


def picture(found):
  """PNG bytes, or None of a search without a grid.

  Args:
    found: content of checkpoints/adapt/drift.json.
  """
  if 'grid' not in found:
    return None
  figure = Figure(figsize=(6.4, 3.8), layout='constrained')
  axis = figure.subplots()
  points = sorted(range(len(found['grid'])), key=lambda i: found['grid'][i])
  values = [found['grid'][i] for i in points]
  for name, (label, colour) in CURVES.items():
    if name in found:
      scores = [found[name][i] for i in points]
      axis.plot(values, scores, 'o-', color=colour, lw=1.8, ms=4, label=label)
  axis.axvline(found['value'], color=WARM, lw=1.2, label=f'chosen: {found["value"]:g}')
  axis.set_xlabel('drift')
  axis.set_title(f'Search for a drift: {found["search"]}', fontsize=11, loc='left')
  axis.spines[['top', 'right']].set_visible(False)
  axis.legend(frameon=False, fontsize=9)
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=130, metadata={'Software': None})
  return buffer.getvalue()
