"""How the planned grid fits the scans, and the command for one that fits."""

from ldm_jax.data.inspection import grid_fit
from ldm_jax.report import doctor_costs, figures, tables
from ldm_jax.report.wording import escape

NAMES = {'now': 'This config', 'proposed': 'Proposed'}


def text(grid):
  """The comparison and the ready command, as lines for the terminal."""
  if grid is None:
    return 'Grid: there are no public scans, so none is proposed.'
  lines = [f'Grid for the {grid["scans"]} public scans that were read']
  for key in _shown(grid):
    row = grid[key]
    lines.append(
      f'  {NAMES[key]:12s} {grid_fit.in_words(row["shape"], row["spacing_mm"])}: '
      f'a scan keeps {grid_fit.times(row["kept"])} voxels '
      f'and {row["inside"]:.0%} of its extent'
    )
  lines.append(f'  {sentence(grid)}')
  if grid['command']:
    lines += ['Ready command (shape, spacing and batches for these scans)']
    lines += [f'  {line}' for line in grid['command'].splitlines()]
  return '\n'.join(lines)


def sentence(grid):
  """What the comparison comes to, in words."""
  if grid['fault']:
    return f'A run on the proposed grid would be refused: {grid["fault"]}'
  if grid['same']:
    return 'The grid of this config fits the scans; the command below keeps it.'
  if grid['now']['poor']:
    return (
      f'{grid["now"]["poor"]} of {grid["scans"]} scans keep few voxels on the grid of '
      f'this config, {grid["proposed"]["poor"]} on the proposed one.'
    )
  if grid['now']['inside'] < grid['proposed']['inside']:
    return (
      f'The box of this config covers {grid["now"]["inside"]:.0%} of the extent of a '
      f'scan, the proposed one {grid["proposed"]["inside"]:.0%}.'
    )
  return 'The proposed grid is finer and takes as many voxels.'


def section(content):
  """The comparison as a table, the command, and slices before and after."""
  grid = content['grid']
  if grid is None:
    return (
      '<p class="muted">There are no public scans. Shape and spacing are not taken '
      'from private ones: what these look like would determine what is released.</p>'
    )
  tone = 'good' if grid['same'] and not grid['fault'] else 'warn'
  rows = [
    [
      NAMES[key],
      grid_fit.in_words(grid[key]['shape'], grid[key]['spacing_mm']),
      f'{grid_fit.times(grid[key]["kept"])} voxels',
      f'{grid[key]["inside"]:.0%}',
      f'{grid[key]["poor"]} of {grid["scans"]}',
      doctor_costs.duration(grid[key]['seconds']),
    ]
    for key in _shown(grid)
  ]
  head = ['Grid', 'box', 'a scan keeps', 'of its extent', 'scans with few voxels']
  command = ''
  if grid['command']:
    command = (
      '<h3>Ready command</h3><p>Shape and spacing from the public scans alone, batches '
      'from the numbers of patients and the memory of this machine.</p>'
      f'<pre>{escape(grid["command"])}</pre>'
    )
  return (
    f'<div class="notice {tone}"><p>{escape(sentence(grid))}</p></div>'
    + doctor_costs.wrapped(tables.table([*head, 'whole run'], rows))
    + command
    + _before_and_after(content['examples'])
  )


def _before_and_after(examples):
  if not examples:
    return ''
  return (
    '<h3>Before and after preprocessing</h3><p>Middle slice, row and column; anterior, '
    'and superior, at the top. Each box fills its picture and each voxel is one block; '
    'below stand the voxels (d, h, w) and their size.</p><div class="panels">'
    + ''.join(map(_example, examples))
    + '</div>'
  )


def _example(example):
  """A column a grid; middle slice, row and column below each other."""
  panels = example['panels']
  volumes = [planes for *_, planes in panels]
  picture = figures.montage(volumes, len(panels), len(volumes[0]), limits=(0, 255))
  width, height = figures.png_size(picture)
  labels = ''.join(
    f'<span><b>{escape(name)}</b><br>{grid_fit.times(shape)}<br>'
    f'{grid_fit.times(spacing)} mm</span>'
    for name, shape, spacing, _ in panels
  )
  return (
    f'<figure><figcaption><b>{escape(example["id"])}</b></figcaption>'
    f'<img src="{figures.data_uri(picture)}" width="{width}" height="{height}" '
    f'alt="{escape(example["id"])} before and after preprocessing">'
    f'<div class="columns" style="--n:{len(panels)}">{labels}</div></figure>'
  )


def _shown(grid):
  return ('now',) if grid['same'] else ('now', 'proposed')
