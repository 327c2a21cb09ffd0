"""What `adapt.pairs` must satisfy before any data are read."""

from ldm_jax.config import require

GAPS = ('none', 'number', 'bin')


def check(config):
  """Checks `adapt.pairs`, and that the editor of pairs has a model of pairs.

  Raises:
    ValueError: as `config.require`.
  """
  section = config.adapt.pairs
  require(section.gap in GAPS, 'adapt.pairs.gap', section.gap, f'one of {GAPS}')
  key, low, high = 'adapt.pairs.max_years', section.min_years, section.max_years
  require(low >= 0, 'adapt.pairs.min_years', low, 'a number of years from 0 up')
  required = f'None, or a number of years from min_years = {low:g} up'
  require(high is None or high >= low, key, high, required)
  scale, key = section.change_scale, 'adapt.pairs.change_scale'
  require(scale is None or scale > 0, key, scale, 'None, or a number above 0')
  left = 1.0
  for what in ('condition', 'source', 'both'):
    share = section[f'drop_{what}']
    required = f'a share from 0 to {left:g}: the three are at most 1 together'
    require(0 <= share <= left + 1e-9, f'adapt.pairs.drop_{what}', share, required)
    left -= share
  if config.counterfactual.editor == 'pairs':
    holds = section.use and config.sample.model == 'adapt'
    required = "another editor without adapt.pairs.use or with sample.model='diffusion'"
    require(holds, 'counterfactual.editor', 'pairs', required)
