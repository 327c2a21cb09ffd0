"""Laws of the geometry of the cardiac phantom."""

import numpy as np
import pytest

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.phantom.cardiac.cohort import render
from ldm_jax.data.phantom.cardiac.population import Stack, sample_patient
from tests.data.phantom.renderings import (
  COARSE,
  FULL,
  LOW,
  SMALL,
  patients_and_hearts,
)


def world(mask, affine):
  """Mean world position (x, y, z) of a mask, mm."""
  return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


@pytest.mark.parametrize('stack', [FULL, SMALL, COARSE, LOW], ids=lambda s: s.shape)
@pytest.mark.parametrize('phase', cardiac.PHASES)
def test_measured_volumes_are_the_requested_ones_within_two_percent(stack, phase):
  for patient, heart in patients_and_hearts(4, phase, stack):
    for part in ('lv', 'rv'):
      wanted = patient[f'{part.upper()}{phase}V']
      assert heart.volumes_ml[part] == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize('phase', cardiac.PHASES)
def test_hard_labels_hold_the_requested_volumes_at_full_resolution(phase):
  for patient, heart in patients_and_hearts(4, phase):
    for label, side in ((1, 'LV'), (3, 'RV')):
      ml = (heart.labels == label).sum() * FULL.voxel_ml
      assert ml == pytest.approx(patient[f'{side}{phase}V'], rel=0.05)


@pytest.mark.parametrize('stack', [SMALL, COARSE], ids=lambda s: s.shape)
def test_fractions_are_the_partial_volumes_of_a_finer_grid(stack):
  d, h, w = stack.shape
  fine = Stack((d, 4 * h, 4 * w), (10, *(mm / 4 for mm in stack.spacing_mm[1:])))
  patient = sample_patient(5, 1, 'public', stack)
  coarse, exact = (render(patient, 'ED', s).fractions for s in (stack, fine))
  for label in (1, 2, 3):
    error = coarse[label] - fields.pool(exact[label], (1, 4, 4))
    border = (coarse[label] > 0) & (coarse[label] < 1)
    assert np.sqrt((error[border] ** 2).mean()) < 0.09
    assert abs(error.sum()) < 0.03 * coarse[label].sum()


@pytest.mark.parametrize('phase', cardiac.PHASES)
def test_the_wall_between_the_areas_is_as_thick_as_requested(phase):
  for patient, heart in patients_and_hearts(4, phase):
    areas = heart.fractions.sum((2, 3)) * 1.83**2
    middle = np.argmax(areas[1])  # the equator
    whole = areas[1, middle] + areas[2, middle]
    thickness = np.sqrt(whole / np.pi) - np.sqrt(areas[1, middle] / np.pi)
    assert thickness == pytest.approx(patient[f'MYO{phase}THICK'], abs=1)


def test_end_systole_has_smaller_cavities_and_a_thicker_wall_of_about_equal_mass():
  pairs = zip(*(patients_and_hearts(4, p) for p in cardiac.PHASES), strict=True)
  for (patient, diastole), (_, systole) in pairs:
    before, after = diastole.volumes_ml, systole.volumes_ml
    assert after['lv'] < before['lv'] and after['rv'] < before['rv']
    assert patient['MYOESTHICK'] > patient['MYOEDTHICK']
    assert after['myocardium'] == pytest.approx(before['myocardium'], rel=0.2)


@pytest.mark.parametrize(
  ('stack', 'num'), [(FULL, 4), (SMALL, 12), (COARSE, 25), (LOW, 25)]
)
def test_the_heart_lies_within_the_real_slices_and_the_field_of_view(stack, num):
  for patient, heart in patients_and_hearts(num, 'ED', stack):
    labels = heart.labels
    for side in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
      assert not side.any()
    top = patient['apex_mm'] + patient['long_axis_mm']['ED']
    assert top <= patient['DEPTH'] * stack.spacing_mm[0]


@pytest.mark.parametrize('angle', [-40.0, 35.0])
def test_angle_rotates_the_heart_in_plane(angle):
  bearings = []
  for degrees in (0.0, angle):
    patient = sample_patient(2, 1, 'public') | {'ANGLE': degrees}
    rendered = render(patient, 'ED')
    apart = world(rendered.labels == 3, rendered.affine) - world(
      rendered.labels == 1, rendered.affine
    )
    bearings.append(np.rad2deg(np.arctan2(apart[1], apart[0])))
  assert bearings[1] - bearings[0] == pytest.approx(angle, abs=2)


def test_rv_lies_to_the_right_and_front_and_the_apex_below():
  patient = sample_patient(2, 1, 'public') | {'ANGLE': 0.0}
  rendered = render(patient, 'ED')
  apart = world(rendered.labels == 3, rendered.affine) - world(
    rendered.labels == 1, rendered.affine
  )
  assert apart[0] > 10 and apart[1] > 0
  areas = (rendered.labels == 1).sum((1, 2))
  cavity = areas[areas > 0]
  assert cavity[0] < 0.6 * cavity[-1]


def test_a_coarse_stack_shows_the_patient_of_the_fine_one():
  patient = sample_patient(0, 2, 'public', SMALL)
  fine = render(patient, 'ED', Stack((12, 96, 96))).image
  fine = fields.pool(fine, (1, 2, 2))
  coarse = render(patient, 'ED', SMALL).image
  assert np.corrcoef(fine.ravel(), coarse.ravel())[0, 1] > 0.97
