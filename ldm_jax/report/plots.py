"""Curves and scatter plots, drawn by matplotlib without a display: -> PNG bytes.

Training curves and control for the report, the panels of `ldm-jax-privacy`, and the
search for a drift.
"""

import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ldm_jax.types import Array

INK, MUTED, ACCENT, WARM = '#1f2933', '#8a96a3', '#1f6f8b', '#c2572b'
NOT_A_METRIC = {'step', 'steps', 'time', 'steps_per_second', 'stage'}
SHADES = ('#9fc5d1', '#5fa3b8', '#1f6f8b', '#123f50')
# Curve of a found drift -> (its name in the picture, colour).
DRIFT_CURVES = {
  'distance_sampling': ('L1 distance, drift of sampling alone', MUTED),
  'distance_training': ('L1 distance after a trial of training', ACCENT),
  'loss_difference': ('denoising loss less that without drift', ACCENT),
}


def training_curves(events: Iterable[Mapping]) -> dict[str, bytes]:
  """Loss against step: list of events -> {title: PNG bytes}, one a stage.

  A step logged twice (an interrupted run that resumed) counts once, with the later
  value. Stages without a logged loss are left out.
  """
  pictures = {}
  for stage, (name, values, internal) in _losses(events).items():
    steps = sorted(values)
    series = np.array([values[step] for step in steps])
    figure, axis = _panel(2.5)
    marker = 'o' if len(steps) < 3 else None
    axis.plot(steps, series, color=WARM if internal else ACCENT, lw=1.4, marker=marker)
    if series.min() > 0 and series.max() > 8 * series.min():
      axis.set_yscale('log')
    axis.set_xlabel('step', fontsize=8, color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    pictures[f'{stage}: {name}' + (' (internal)' if internal else '')] = _saved(
      figure, 160
    )
  return pictures


def scatter(control: Mapping[str, tuple[Array, Array]]) -> dict[str, bytes]:
  """Measured against requested values with the identity line: -> {name: PNG bytes}.

  Args:
    control: attribute name -> (requested (n,), measured (n,)).
  """
  pictures = {}
  for name, sides in control.items():
    pair = np.stack([np.asarray(side, float) for side in sides])
    requested, measured = pair[:, np.isfinite(pair).all(axis=0)]
    if not requested.size:
      continue
    low = min(requested.min(), measured.min())
    high = max(requested.max(), measured.max())
    margin = 0.06 * (high - low or 1)
    limits = (low - margin, high + margin)
    figure, axis = _panel(3.1)
    axis.plot(limits, limits, color=MUTED, lw=1, ls=(0, (4, 3)))
    axis.plot(requested, measured, 'o', ms=3.5, color=ACCENT, alpha=0.75, mew=0)
    axis.set(xlim=limits, ylim=limits, aspect='equal')
    for line in (axis.xaxis, axis.yaxis):
      line.set_major_locator(MaxNLocator(4))
    axis.set_xlabel('requested', fontsize=8, color=INK)
    axis.set_ylabel('measured', fontsize=8, color=INK)
    pictures[name] = _saved(figure, 160)
  return pictures


def budget(planned: Mapping[str, Any], lines: Mapping[str, Any]) -> bytes:
  """The picture of a privacy plan: what steps spend, what a budget needs, which batch.

  Args:
    planned: of `privacy.budget.plan`.
    lines: of `privacy.budget.curves`.
  """
  chosen = planned['suggested']
  figure = Figure(figsize=(12.5, 4.1), layout='constrained')
  spent, needed, ratio = figure.subplots(1, 3)
  _spent(spent, planned, lines['spent'])
  _needed(needed, planned, lines['needed'])
  _ratio(ratio, planned)
  figure.suptitle(
    f'{planned["num_patients"]:,} patients, ε = {planned["epsilon"]:g} at '
    f'δ = {_plain(planned["delta"])}, {planned["steps"]:,} steps: batch of '
    f'{chosen["batch_size"]:,} patients with σ = {chosen["noise_multiplier"]:.3g}',
    fontsize=11,
    color=INK,
  )
  return _saved(figure, 130)


def drift_search(found: Mapping[str, Any]) -> bytes | None:
  """Distances or losses over the grid of a search for a drift, None without a grid.

  Args:
    found: content of checkpoints/adapt/drift.json.
  """
  if 'grid' not in found:
    return None
  figure = Figure(figsize=(6.4, 3.8), layout='constrained')
  axis = figure.subplots()
  points = sorted(range(len(found['grid'])), key=lambda i: found['grid'][i])
  values = [found['grid'][i] for i in points]
  for name, (label, colour) in DRIFT_CURVES.items():
    if name in found:
      scores = [found[name][i] for i in points]
      axis.plot(values, scores, 'o-', color=colour, lw=1.8, ms=4, label=label)
  axis.axvline(found['value'], color=WARM, lw=1.2, label=f'chosen: {found["value"]:g}')
  axis.set_xlabel('drift')
  axis.set_title(f'Search for a drift: {found["search"]}', fontsize=11, loc='left')
  axis.spines[['top', 'right']].set_visible(False)
  axis.legend(frameon=False, fontsize=9)
  return _saved(figure, 130)


def trade_off(curves: Mapping[str, Mapping[str, Iterable[float]]]) -> dict[str, bytes]:
  """delta(epsilon), and misses against false alarms: -> {title: PNG bytes}.

  Args:
    curves: of privacy.json, relation -> {'epsilon', 'delta', 'false_alarms', 'misses'};
      relations without numbers are left out.
  """
  names = {'add_or_remove_one': 'zero-out', 'substitute_one': 'substitution'}
  colours = {'add_or_remove_one': ACCENT, 'substitute_one': WARM}
  known = {name: curve for name, curve in curves.items() if curve.get('epsilon')}
  if not known:
    return {}
  pictures = {}
  for title, across, up in (
    ('delta for every epsilon', 'epsilon', 'delta'),
    ('misses of any attack for its false alarms', 'false_alarms', 'misses'),
  ):
    figure, axis = _panel(2.5)
    for name, curve in known.items():
      colour, label = colours.get(name, INK), names.get(name, name)
      axis.plot(curve[across], curve[up], color=colour, lw=1.4, label=label)
    if up == 'delta':
      axis.set_yscale('log')
      axis.set_ylim(1e-9, 1.5)
    else:
      axis.plot([0, 1], [1, 0], color=MUTED, lw=0.8, ls=':', label='blind guessing')
    axis.set_xlabel(across.replace('_', ' '), fontsize=8, color=INK)
    axis.legend(fontsize=7, frameon=False)
    pictures[title] = _saved(figure, 160)
  return pictures


def _losses(events):
  """stage -> (metric name, {step: value}, internal)."""
  found = {}
  for event in events:
    stage, step = event.get('stage'), event.get('step')
    if stage is None or not isinstance(step, int | float):
      continue
    names = [
      name
      for name, value in event.items()
      if name not in NOT_A_METRIC
      and isinstance(value, int | float)
      and not isinstance(value, bool)
      and math.isfinite(value)
    ]
    known = found.get(stage)
    name = known[0] if known else next(iter(sorted(names, key='loss'.__ne__)), None)
    if name in names:
      values = known[1] if known else {}
      values[step] = event[name]
      found[stage] = (name, values, bool(event.get('internal')))
  return found


def _panel(height):
  figure = Figure(figsize=(3.2, height), layout='constrained')
  axis = figure.subplots()
  _frame(axis, 7)
  return figure, axis


def _spent(axis, planned, lines):
  size = planned['suggested']['batch_size']
  for (sigma, points), shade in zip(lines.items(), SHADES, strict=False):
    points = [(x, y) for x, y in points if math.isfinite(y)]
    axis.loglog(*zip(*points, strict=True), color=shade, lw=1.8)
    _label(axis, points[-1], f'σ = {sigma:.3g}', shade)
  axis.axhline(planned['epsilon'], color=MUTED, lw=1, ls=(0, (4, 3)))
  axis.plot(planned['steps'], planned['epsilon'], 'o', color=WARM, ms=6, zorder=5)
  _dress(
    axis,
    f'What steps spend (batch of {size:,})',
    'noisy steps',
    f'ε at δ = {_plain(planned["delta"])}',
  )


def _needed(axis, planned, lines):
  for (size, points), shade in zip(lines.items(), SHADES, strict=False):
    points = sorted((x, y) for x, y in points if math.isfinite(x) and x > 0)
    axis.loglog(*zip(*points, strict=True), color=shade, lw=1.8)
    _label(axis, points[-1], f'batch {size:,}', shade)
  chosen = planned['suggested']
  axis.plot(planned['epsilon'], chosen['noise_multiplier'], 'o', color=WARM, ms=6)
  axis.axvline(planned['epsilon'], color=MUTED, lw=1, ls=(0, (4, 3)))
  _dress(
    axis,
    f'What a budget needs ({planned["steps"]:,} steps)',
    f'budget ε at δ = {_plain(planned["delta"])}',
    'noise multiplier σ (noise deviation / clip norm)',
  )


def _ratio(axis, planned):
  sizes = [row['batch_size'] for row in planned['table']]
  ratios = [row['noise_to_signal'] for row in planned['table']]
  chosen = planned['suggested']
  axis.loglog(sizes, ratios, 'o-', color=ACCENT, lw=1.8, ms=4)
  axis.plot(chosen['batch_size'], chosen['noise_to_signal'], 'o', color=WARM, ms=7)
  place = (chosen['batch_size'], chosen['noise_to_signal'])
  axis.annotate(
    f'suggested: {chosen["batch_size"]:,}',
    place,
    xytext=(6, 8),
    textcoords='offset points',
    fontsize=9,
    color=WARM,
  )
  count = planned['num_parameters']
  of = f'{count:,.0f} parameters' if count > 1 else 'one parameter'
  _dress(
    axis,
    f'How loud the noise is ({of})',
    'expected patients a step',
    'noise norm / largest gradient norm',
  )
  axis.margins(y=0.15)


def _plain(number):
  return f'{number:g}'.replace('e-0', 'e-')


def _label(axis, place, text, colour):
  axis.annotate(
    text,
    place,
    xytext=(5, 0),
    textcoords='offset points',
    va='center',
    fontsize=8.5,
    color=colour,
  )


def _dress(axis, title, across, up):
  axis.set_title(title, fontsize=10, color=INK)
  axis.set_xlabel(across, fontsize=9.5, color=INK)
  axis.set_ylabel(up, fontsize=9.5, color=INK)
  _frame(axis, 8.5)
  left, right = axis.get_xlim()
  axis.set_xlim(left, right * (right / left) ** 0.18)  # room for the labels
  for line in (axis.xaxis, axis.yaxis):
    low, high = line.get_view_interval()
    few = high / low < 300  # room for 2 and 5 between the powers of ten
    line.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    line.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.10g}'))
    line.set_minor_formatter(NullFormatter())


def _frame(axis, size):
  axis.tick_params(labelsize=size, colors=INK, length=3, which='both')
  axis.grid(color='#e5e9ee', lw=0.6, which='major')
  axis.set_axisbelow(True)
  for side, spine in axis.spines.items():
    spine.set_visible(side in ('left', 'bottom'))
    spine.set_color('#c3ccd5')


def _saved(figure, dpi):
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=dpi, metadata={'Software': None})
  return buffer.getvalue()
