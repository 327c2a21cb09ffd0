"""The sections `data` and `augment`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

CHOICES = {'data.labels': ('', 'joint')}


def section() -> dict[str, Any]:
  """The keys of `data`: the cohorts, their split, preprocessing."""
  return {
    # Patients whose scans may be used freely; trains the autoencoder, the
    # latent statistics, the pre-trained denoiser and the measuring network.
    'public': {
      **_cohort('public'),
      # Further public cohorts, under the first one's attributes: a tuple of mappings
      # with layout, root, part and options, such as a phantom beside few scans
      # (docs/real-scans.md).
      'also': (),
    },
    # Patients whom the privacy statement protects.
    'private': _cohort('private'),
    # Held-out patients for internal evaluation; train nothing.
    'test': _cohort('test'),
    # Public, labelled: the measuring network learns from these instead, where the
    # public scans have no labels or show other people than the private ones.
    'measuring': _cohort('measuring'),
    # Held-out public patients, with whom samples of the public model are compared
    # (sample.model='diffusion'); train nothing.
    'public_test': _cohort('public_test'),
    # Patient-wise shares, used by sections that name a `part` of one root. A patient's
    # part follows from a hash of the id and of split_seed, a public salt, so the sizes
    # vary around the shares.
    'split': {'public': 0.4, 'private': 0.4, 'test': 0.2},
    'split_seed': 0,
    # 'joint': label maps are drawn together with the scans. The autoencoder gets the
    # classes of evaluate.labels, one-hot, beside the intensities, and every sample
    # comes with its label map; public and private scans need labels. '' draws scans
    # alone.
    'labels': '',
    # Attributes: () means the layout's own schema.
    'schema': (),
    'preprocess': {
      'shape': (12, 48, 48),
      # mm per axis (slices, rows, columns); None keeps the file's own spacing.
      'spacing_mm': (None, None, None),
      'percentiles': (0.5, 99.5),
      'foreground': True,
      'centre': 'grid',
      # The heuristic (data/preprocessing/centring.py) of scans without labels under
      # 'label'.
      'centre_without_label': 'mass',
      # One gain a slice evens out exports whose slices were scaled one by one. Off:
      # it also takes true differences between slices.
      'harmonise_slices': False,
      # Two intensities that become 0 and 1 in every scan, such as (-1000, 800)
      # Hounsfield units of CT; () takes the percentiles of each scan.
      'window': (),
      # Which statement of a NIfTI header gives a scan's place: nibabel's rule (the
      # sform, else the qform, else the voxels' sizes), strict (refuse files that
      # state none, or two), trust_sform, trust_qform.
      'orientation': 'nibabel',
      # A scan that fills less of the box (shape x spacing_mm) is refused.
      'least_filled': 0.01,
    },
    # prepare fails where no patient has a value of any attribute. False trains a model
    # that attributes do not control.
    'require_attributes': True,
    # prepare fails when more than this share of the files cannot be read.
    'max_bad_fraction': 0.001,
  }


def augmentation() -> dict[str, Any]:
  """The keys of `augment`: random changes of public volumes, for small cohorts."""
  return {
    # Transformed copies of each volume for pre-training; the autoencoder draws anew
    # at every step.
    'copies': 0,
    # Largest translation in voxels, and rotation about each axis (d, h, w).
    'shift': (0, 0, 0),
    'rotation_deg': (0, 0, 0),
    # Intensities become x**exp(u), u uniform up to this.
    'gamma': 0.0,
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `data.labels` and `config.augment`."""
  require_choices(config, CHOICES)
  if config.data.labels:
    key, value = 'evaluate.labels', config.evaluate.labels
    required = "at least two label values where data.labels is 'joint'"
    require(len(set(value)) == len(value) >= 2, key, value, required)
    key, value = 'autoencoder.model.kind', config.autoencoder.model.kind
    required = "'network' where data.labels is 'joint', since a wavelet knows no labels"
    require(value == 'network', key, value, required)
  check_transformations(config.augment, 'augment')
  value = config.augment.copies
  require(value >= 0, 'augment.copies', value, 'a number from 0 up')


def check_transformations(section: Config, prefix: str) -> None:
  """Raises ValueError unless shifts, angles and contrast can be drawn."""
  for key in ('shift', 'rotation_deg'):
    value = section[key]
    holds = len(value) == 3 and min(value) >= 0
    require(holds, f'{prefix}.{key}', value, 'three numbers from 0 up: axes d, h and w')
  value = section.gamma
  require(value >= 0, f'{prefix}.gamma', value, 'a number from 0 up')


def _cohort(part):
  return {
    # '' leaves the cohort empty.
    'layout': '',
    'root': '',
    # The share of data.split to take; '' takes every patient.
    'part': part,
    # Keyword arguments of the layout: table, columns, phantom size and site.
    'options': {},
  }
