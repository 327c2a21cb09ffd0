"""The section `sample`: default values and rules."""

from collections.abc import Mapping
from typing import Any

from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

CHOICES = {
  'sample.solver': ('ddim', 'ddpm', 'euler', 'heun', 'dpmpp_2m', 'unipc'),
  'sample.spacing': ('linspace', 'leading', 'trailing', 'monai'),
  'sample.model': ('adapt', 'diffusion'),
}


def section() -> dict[str, Any]:
  """The keys of `sample`: how many, by which solver, under which requests."""
  return {
    'num': 32,
    # Another number draws other samples of the same model.
    'seed': 0,
    # One of adapt.ema_decay; None for the first of them.
    'ema_decay': None,
    'steps': 50,
    'solver': 'ddim',
    'eta': 0.0,
    # 'trailing' divides the time evenly, as a flow or a zero terminal SNR wants.
    'spacing': 'trailing',
    'guidance': 1.0,
    'batch_size': 16,
    # Draw the noise of a scan that the autoencoder leaves out, of the size that it has
    # on public scans; False gives the smooth volume that the decoder makes.
    'residual_noise': True,
    # Latent voxels per axis decoded at once, where a whole volume does not fit the
    # device; () decodes whole. Tiles overlap and are blended.
    'decode_tile': (),
    'decode_overlap': 4,
    # 'uniform': within the schema's ranges, people who do not exist; 'population':
    # the layout's documented population; 'private_prior': drawn from
    # adapt.privacy.releases.attributes, which is best where a budget allows it;
    # 'public': rows of real public patients, which samples.csv then shows; or a
    # table with one column per attribute.
    'requests': 'uniform',
    # Label maps that the samples are drawn for, where diffusion.conditioner.by has
    # 'mask': 'public', those of real public patients; 'none'; or a NIfTI file or a
    # folder of them, of label values on the model's grid, such as the *_seg.nii.gz of
    # samples.
    'masks': 'public',
    # Several volumes of each synthetic patient, drawn from one noise and asked for with
    # the same attributes, but for those named here: attribute -> its value in each of
    # the volumes. ESED='1|0' gives end-diastole and end-systole, age='+0|+2' a second
    # visit two years after the first. `num` still counts volumes.
    'within_patient': {},
    # 'adapt', or 'diffusion' to look at the public model.
    'model': 'adapt',
    # File of token embeddings that all samples are given; '' for none.
    'text': '',
    # Attributes that the report varies one at a time.
    'sweep': (),
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `config.sample`."""
  require_choices(config, CHOICES)
  value = config.sample.text
  holds = config.diffusion.text.files or not value
  require(holds, 'sample.text', value, "'' where diffusion.text.files is ''")
  _check_within_patient(config)


def within_patient(config: Config) -> dict[str, tuple[str, ...]]:
  """`sample.within_patient`: attribute -> its value in each of a patient's volumes.

  {} where every volume is a patient of its own.
  """
  return split_values(config.sample.within_patient)


def split_values(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
  """{name: 'a|b'} -> {name: ('a', 'b')}, one for each volume of a patient.

  Raises:
    ValueError: fewer than two values, not as many of each name, or twice the same.
  """
  found = {
    name: tuple(part.strip() for part in str(value).split('|'))
    for name, value in values.items()
  }
  sizes = {len(each) for each in found.values()} or {2}
  holds = len(sizes) == 1 and min(sizes) > 1
  required = "as many values of each attribute, two or more, such as ESED='1|0'"
  require(holds, 'sample.within_patient', dict(values), required)
  volumes = list(zip(*found.values(), strict=True))
  holds, required = len(set(volumes)) == len(volumes), 'different for each volume'
  require(holds, 'sample.within_patient', dict(values), required)
  return found


def _check_within_patient(config):
  found = within_patient(config)
  if not found:
    return
  num, size = config.sample.num, len(next(iter(found.values())))
  required = f'a multiple of {size}, the volumes of a patient'
  require(num % size == 0, 'sample.num', num, required)
  if 'mask' in config.diffusion.conditioner.by:
    # Each row of the public cohort has an anatomy of its own.
    value = config.sample.masks
    required = "'none', or a folder with a label map for each volume"
    require(value != 'public', 'sample.masks', value, required)
