"""Laws of requested label maps: whose they are, and which files are refused."""

import types

import numpy as np
import pytest

from ldm_jax.config.parsing import override
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.synthesis import mask_requests, requests
from tests import micro

BY = ('embedding', 'mask')
MAPS = np.random.default_rng(0).integers(0, 4, (3, *micro.SHAPE)).astype(np.uint8)


class Public:
  """As much of a public cohort as is asked: three labelled scans."""

  name, ids = 'public', ['a', 'b', 'c']
  attributes = np.arange(3, dtype=np.float32)[:, None]

  def __len__(self):
    return 3

  def labels(self, rows):
    return MAPS[rows]


def config(**flags):
  base = override(micro.get_config(), {'diffusion.conditioner.by': BY})
  return override(base, {f'sample.{key}': value for key, value in flags.items()})


def write(path, labels):
  volume.write(path, labels, centred_affine(labels.shape, micro.SPACING_MM))
  return str(path)


def test_a_map_of_a_public_patient_goes_with_the_attributes_of_this_patient():
  asked = config(requests='public', num=5)
  maps = mask_requests.draw(asked, Public(), 5)
  schema = types.SimpleNamespace()
  rows = requests.draw(asked, schema, Public())[:, 0].astype(int)
  assert np.array_equal(maps, MAPS[rows]) and set(rows) == {0, 1, 2}


def test_models_without_maps_and_samples_without_them_get_none():
  assert mask_requests.draw(micro.get_config(), Public(), 2) is None
  assert mask_requests.draw(config(masks='none'), Public(), 2) is None
  with pytest.raises(ValueError, match=r'data\.public is empty'):
    mask_requests.draw(config(), None, 2)


def test_maps_of_files_are_taken_in_turn_and_those_of_samples_before_scans(tmp_path):
  for number, labels in enumerate(MAPS[:2]):
    write(tmp_path / f's{number}_seg.nii.gz', labels)
  volume.write(tmp_path / 's0.nii.gz', MAPS[0] / 7, np.eye(4))
  found = mask_requests.draw(config(masks=str(tmp_path)), None, 3)
  assert np.array_equal(found, MAPS[[0, 1, 0]])
  one = mask_requests.draw(config(masks=str(tmp_path / 's1_seg.nii.gz')), None, 2)
  assert np.array_equal(one, MAPS[[1, 1]])


def test_files_that_do_not_fit_are_refused_with_what_is_expected(tmp_path):
  with pytest.raises(ValueError, match="expected 'public'"):
    mask_requests.check(config(masks=str(tmp_path / 'nothing')))
  mask_requests.check(config())
  small = write(tmp_path / 'small.nii.gz', MAPS[0][:, :4])
  with pytest.raises(ValueError, match="model's grid"):
    mask_requests.draw(config(masks=small), None, 1)
  wrong = write(tmp_path / 'wrong.nii.gz', MAPS[0] + 5)
  with pytest.raises(ValueError, match=r'holds the labels \[5, 6, 7, 8\]'):
    mask_requests.draw(config(masks=wrong), None, 1)
