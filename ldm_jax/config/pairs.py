"""The section `adapt.pairs`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import require
from ldm_jax.types import Config

GAPS = ('none', 'number', 'bin')


def section() -> dict[str, Any]:
  """The keys of `adapt.pairs`: from an earlier scan of a patient to a later one."""
  return {
    # True: examples are pairs of visits of one patient, and the network sees the
    # earlier scan's latent as further input channels (Brooks 2023).
    'use': False,
    # Years between the two; None for no limit.
    'min_years': 0.0,
    'max_years': None,
    # True pairs each visit with the next one alone; all pairs teach longer gaps.
    'adjacent': False,
    # True also teaches the way back, which nothing can follow but the ageing of the
    # cohort; without it an editor refuses to make anyone younger.
    'both_directions': False,
    # How the network is told of the years: 'number', 'bin' (below 5, up to 10, above)
    # or 'none'.
    'gap': 'number',
    # None: the network learns the later scan. A number: it learns the change to it, in
    # this unit, so that nothing need be copied from the source. About the deviation of
    # (later - earlier), in deviations of the latents; a choice from public pairs or
    # from elsewhere, never from the private cohort.
    'change_scale': None,
    # Patients without any pair train with their scans, each without a source.
    'singles': True,
    # Shares of examples without condition, without source, without both; they replace
    # diffusion.drop_probability (Brooks 2023).
    'drop_condition': 0.05,
    'drop_source': 0.05,
    'drop_both': 0.05,
  }


def check(config: Config) -> None:
  """Checks `adapt.pairs`, and that the editor of pairs has a model of pairs.

  Raises:
    ValueError: as `parsing.require`.
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
