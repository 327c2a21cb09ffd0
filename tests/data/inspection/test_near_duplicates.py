"""Laws of near duplicates: the same scan in other bytes is found, no other is."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.inspection import near_duplicates


def phantoms(count, seed, **options):
  options |= {'shape': (8, 32, 32), 'spacing_mm': (12, 5.5, 5.5)}
  read = layouts.LAYOUTS['phantom_cardiac'].read
  cohort = read(num_patients=count, seed=seed, **options)
  records = [record for record in cohort.records if record.phase == 'ED']
  return [record.source.read()[0].array for record in records]


@pytest.fixture(scope='module')
def hearts():
  return phantoms(16, seed=3)


@pytest.mark.parametrize(
  'change',
  [
    lambda x: np.clip(x, 0, 1) ** 0.7,
    lambda x: 900 * x + 40,
    lambda x: x + np.random.default_rng(0).normal(0, 0.05, x.shape),
    lambda x: np.round(255 * np.clip(x, 0, 1)),
    lambda x: x.reshape(8, 16, 2, 16, 2).mean((2, 4)),
  ],
  ids=['gamma', 'scale', 'noise', 'eight bits', 'coarser'],
)
def test_the_same_scan_in_other_bytes_is_found_and_no_other_is(hearts, change):
  signatures = [near_duplicates.signature(x) for x in [*hearts, change(hearts[4])]]
  patients = [f'p{n}' for n in range(len(signatures))]
  found = list(near_duplicates.near_pairs(signatures, patients))
  assert [(i, j) for i, j, _ in found] == [(4, 16)]
  patients[16] = 'p4'
  assert not list(near_duplicates.near_pairs(signatures, patients)), (
    'scans of one patient'
  )


def test_a_signature_does_not_depend_on_how_a_stretch_is_cut():
  x = np.random.default_rng(0).random((8, 16, 16))
  fine = x.repeat(3, 0).repeat(5, 1).repeat(2, 2)
  np.testing.assert_allclose(
    near_duplicates.signature(fine), near_duplicates.signature(x), atol=1e-6
  )
  assert near_duplicates.signature(np.ones((1, 3, 300))).shape == (8 * 16 * 16,)
