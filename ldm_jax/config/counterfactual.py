"""The section `counterfactual`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import flatten, require, require_choices
from ldm_jax.types import Config

CHOICES = {
  'counterfactual.editor': ('ddim', 'ddpm', 'pairs', 'pix2pix_zero', 'sdedit'),
}


def section() -> dict[str, Any]:
  """The keys of `counterfactual`: whose scans, which change, which editor."""
  return {
    # A prepared cohort's name, or a folder of scans with a table as the layout `folder`
    # reads it. Counterfactuals of patients who are not public are scans of these
    # patients and are marked internal; a folder counts as private.
    'source': 'public',
    # Options of the layout `folder` for such a folder: table, subject, image, label.
    'options': {},
    # Scans of a cohort to change, the first ones that the change fits; of a folder all
    # are. 0 leaves the stage out.
    'num': 4,
    'set': {},
    # How the source's noise is found and the change is made:
    # synthesis/editors/registry.py.
    'editor': 'ddim',
    'steps': 50,
    'guidance': 1.5,
    'keep_detail': True,
    # Above 0, latent voxels that change by less than this many robust deviations of the
    # whole change stay as they were (3 is usual). For requests that change few voxels.
    'least_change': 0.0,
    # Null interventions in a row for the composition, beside a single one: errors that
    # one hides add up.
    'null_cycles': 10,
    # NIfTI file on the source's grid, not zero where the editor may change something;
    # {id} stands for the source's. '' leaves the whole volume to the editor.
    'mask': '',
    # The same by the source's labels: what may change, or what must not.
    'edit_labels': (),
    'keep_labels': (),
    # Voxels by which the region of edit_labels grows: what gets larger needs room.
    'margin': 2,
    # Patients of the test cohort whose last visit is predicted from an earlier one and
    # compared with the real one, where there are several visits; 0 for none.
    'forecasts': 16,
    'ddim': {
      # Fixed-point refinements of each inversion step; what they leave is added back.
      'num_iterations': 1,
    },
    'ddpm': {
      # Share of the steps, the noisiest, that are left out: more keeps the layout of
      # the source. Huberman-Spiegelglas 2024 leave out 36 of 100.
      'skip': 0.36,
    },
    # For models adapted with adapt.pairs.use. Brooks 2023 guide the request by 7.5
    # (`guidance`) and the source by 1.5, which None stands for; a model trained with
    # adapt.pairs.change_scale has no guidance by the source.
    'pairs': {
      'source_guidance': None,
      # True: the source plus the difference of two samples from one noise, under the
      # request and under no change: what was not asked for stays. False: Brooks 2023.
      'relative': True,
      # Noises whose results are averaged: less of what the noise alone decides.
      'num_draws': 1,
      # As in `sample`.
      'solver': 'ddim',
      'eta': 0.0,
    },
    'sdedit': {
      # How far back to noise: 1 forgets the source. Meng 2022 use 0.3 to 0.6.
      'strength': 0.5,
    },
    'pix2pix_zero': {
      # Step along the gradient of the squared distance between cross-attention maps.
      # Parmar 2023.
      'weight': 0.1,
      # Rates that keep the inverted noise white: without correlation, and N(0, 1).
      # Parmar 2023, per number of a latent; 0 and 0 leaves the noise alone.
      'auto_correlation': 0.005,
      'kl': 0.001,
    },
  }


def check(config: Config) -> None:
  """Raises ValueError naming the key, its value and what is required."""
  require_choices(config, CHOICES)
  section, key = config.counterfactual, 'counterfactual.editor'
  value = section.least_change
  require(value >= 0, 'counterfactual.least_change', value, 'a number from 0 up')
  attends = 'attention' in config.diffusion.conditioner.by
  required = "another where 'attention' is not in diffusion.conditioner.by"
  require(attends or section.editor != 'pix2pix_zero', key, section.editor, required)
  value = section.ddpm.skip
  require(0 <= value < 1, 'counterfactual.ddpm.skip', value, 'a share below 1')
  value = section.sdedit.strength
  key = 'counterfactual.sdedit.strength'
  require(0 < value <= 1, key, value, 'a share above 0, at most 1')
  for key in ('margin', 'num', 'ddim.num_iterations'):
    value = flatten(section)[key]
    require(value >= 0, f'counterfactual.{key}', value, 'a whole number from 0 up')
  for key in ('weight', 'auto_correlation', 'kl'):
    value = section.pix2pix_zero[key]
    key = f'counterfactual.pix2pix_zero.{key}'
    require(value >= 0, key, value, 'a number from 0 up')
