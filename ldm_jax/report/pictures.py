"""Report sections made of pictures: samples with viewer, sweeps, counterfactuals."""

import numpy as np

from ldm_jax.report import figures, tables
from ldm_jax.report.wording import escape, number

ROWS = (
  ('real', 'Real', 'scans as the model sees them, after preprocessing'),
  (
    'reconstructed',
    'Reconstructed',
    'the same scans through the autoencoder: the best that any sample can look like',
  ),
  ('synthetic', 'Synthetic', 'samples drawn from the model'),
)


def is_internal(images, key):
  """True when the pictures under `key` show scans of private patients."""
  return key in (images.get('internal') or ())


def samples(content):
  """Montages of real, reconstructed and synthetic volumes, and the slice viewer."""
  images = content.get('images') or {}
  present = [row for row in ROWS if _present(images.get(row[0]))]
  if not present:
    return '<p class="muted">No volumes were handed to the report.</p>'
  # One window for all three rows: a difference in contrast shall be seen.
  limits = figures.window(figures.as_volumes(images[present[0][0]]))
  parts = []
  for key, name, note in present:
    volumes = figures.as_volumes(images[key])
    count = min(8, len(volumes))
    depth = volumes.shape[1]
    slices = figures.slice_numbers(depth, 3) + 1
    where = f'slices {", ".join(map(str, slices))} of {depth}' if depth > 1 else '2D'
    badge = tables.INTERNAL if is_internal(images, key) else ''
    caption = f'<b>{name}</b> {badge} {note} ({where}; one volume per column)'
    parts.append(
      tiles(figures.montage(volumes, limits=limits), caption, f'{name} volumes', count)
    )
  return requests(content) + ''.join(parts) + _viewer(images, present, limits)


def requests(content):
  """Whose attribute values the samples were asked for: a notice, or nothing."""
  origin = content.get('requests')
  if not origin:
    return ''
  name, _, values = origin.partition(': ')
  tone = {'public': 'warn', 'table': ''}.get(name.split()[0], 'good')
  return (
    f'<div class="notice {tone}"><p>Requested attributes: {escape(values)} '
    f'(<code>sample.requests</code>: {escape(name)}).</p></div>'
  )


def sweeps(content):
  """One attribute varied, seed and all other attributes fixed: a strip for each."""
  images = content.get('images') or {}
  parts = []
  for name, (values, volumes) in (images.get('sweeps') or {}).items():
    volumes = figures.as_volumes(volumes)
    count = min(9, len(volumes))
    chosen = np.unique(np.linspace(0, len(volumes) - 1, count).round().astype(int))
    labels = [_value(values[i]) for i in chosen]
    picture = figures.montage(volumes[chosen], num_columns=len(chosen))
    caption = f'<b>{escape(name)}</b> from {labels[0]} to {labels[-1]}'
    alt = f'samples with {name} from {labels[0]} to {labels[-1]}'
    parts.append(tiles(picture, caption, alt, len(chosen), labels))
  if not parts:
    return ''
  intro = (
    '<h3>One attribute at a time</h3><p>Same seed and same other attributes in every '
    'column; only the named attribute changes.</p>'
  )
  return intro + ''.join(parts)


def counterfactuals(content):
  """Source, counterfactual and their difference, one figure a case."""
  images = content.get('images') or {}
  cases = images.get('counterfactuals') or ()
  if not len(cases):
    return '<p class="muted">No counterfactuals were made in this run.</p>'
  badge = tables.INTERNAL if is_internal(images, 'counterfactuals') else ''
  whose = 'patients who are not public' if badge else 'public patients'
  parts = [
    f'<p>{badge} Edits of scans of real {whose}: the same scan, re-imagined with one '
    'or more attributes changed. What was not asked to change should stay white in the '
    'difference.</p>'
  ]
  truths = images.get('truths')
  rows = ('source', 'counter&shy;factual', 'difference')
  rows += ('truth', 'true difference') if truths is not None else ()
  labels = ''.join(f'<span>{row}</span>' for row in rows)
  for i, (source, changed, difference, text) in enumerate(cases):
    truth = None if truths is None else truths[i]
    picture, scale = figures.counterfactual(source, changed, difference, truth=truth)
    width, height = figures.png_size(picture)
    parts.append(
      f'<figure><figcaption><b>{escape(text)}</b> {badge} '
      f'difference: blue darker, red brighter, full colour ±{number(scale)}'
      '</figcaption><div class="scroll"><div class="rows wide"><div class="labels">'
      f'{labels}</div>'
      f'<img src="{figures.data_uri(picture)}" width="{width}" height="{height}" '
      f'alt="{escape(f"source, counterfactual and difference: {text}")}">'
      '</div></div></figure>'
    )
  return ''.join(parts)


def plots(panels, what):
  """Drawn panels side by side: {title: PNG bytes} and what they show -> HTML."""
  shown = []
  for title, picture in panels.items():
    width, height = figures.png_size(picture)
    shown.append(
      f'<figure><figcaption><b>{escape(title)}</b></figcaption>'
      f'<img src="{figures.data_uri(picture)}" width="{width}" height="{height}" '
      f'alt="{escape(f"{what}: {title}")}"></figure>'
    )
  return f'<div class="panels">{"".join(shown)}</div>' if shown else ''


def tiles(picture, caption, alt, count, labels=()):
  """A tiled picture, wide enough to be seen on a telephone, labels below columns."""
  width, height = figures.png_size(picture)
  below = ''
  if labels:
    spans = ''.join(f'<span>{label}</span>' for label in labels)
    below = f'<div class="columns" style="--n:{count}">{spans}</div>'
  share = min(100, round(100 * count / 8)) if count < 6 else 100
  return (
    f'<figure><figcaption>{caption}</figcaption><div class="scroll">'
    f'<div class="{"wide" if count > 4 else "tiles"}" style="width:{share}%">'
    f'<img src="{figures.data_uri(picture)}" width="{width}" height="{height}" '
    f'alt="{escape(alt)}">{below}</div></div></figure>'
  )


def _viewer(images, present, limits):
  sheets, options = [], []
  # Samples first: they are what a reader wants to leaf through.
  for key, name, _ in sorted(present, key=lambda row: row[0] != 'synthetic'):
    picture, shape = figures.sprite(images[key], limits)
    size = ' '.join(f'data-{k}="{shape[k]}"' for k in ('depth', 'height', 'width'))
    sheets.append(
      f'<img id="sheet-{key}" hidden alt="" {size} src="{figures.data_uri(picture)}">'
    )
    rows = ''.join(
      f'<option data-sheet="sheet-{key}" data-row="{row}">{name} {row + 1}</option>'
      for row in range(shape['num'])
    )
    options.append(f'<optgroup label="{name}">{rows}</optgroup>')
  return (
    '<h3>Slice viewer</h3><div class="viewer"><canvas role="img" '
    'aria-label="chosen slice"></canvas><div><label>Volume<select>'
    f'{"".join(options)}</select></label><label>Slice <output></output>'
    '<input type="range" min="0" max="1" value="0" step="1"></label>'
    '<p class="muted"><small>Move the slider, or turn the wheel over the picture, to '
    f'go through the stack.</small></p></div>{"".join(sheets)}</div>'
  )


def _present(volumes):
  return volumes is not None and len(volumes) > 0


def _value(value):
  try:
    return escape(number(float(value)))
  except (TypeError, ValueError):
    return escape(value)
