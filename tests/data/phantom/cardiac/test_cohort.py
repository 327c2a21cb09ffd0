"""Laws of the cardiac phantom."""

import dataclasses
import time

import numpy as np
import pytest

from ldm_jax.data.cohorts import cohort as cohorts
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.phantom.cardiac.cohort import render
from ldm_jax.data.phantom.cardiac.population import Stack, sample_patient

FULL = Stack((13, 96, 96), (10, 1.83, 1.83))
SMALL = Stack((12, 48, 48), (10, 3.66, 3.66))
COARSE = Stack((12, 32, 32), (10, 5.5, 5.5))
LOW = Stack((8, 32, 32), (10, 5.5, 5.5))


def patients(num, stack=FULL):
  return [
    sample_patient(5, index, site, stack)
    for site in ('public', 'private')
    for index in range(num)
  ]


def world(mask, affine):
  """Mean world position (x, y, z) of a mask, mm."""
  return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


@pytest.mark.parametrize('stack', [FULL, SMALL, COARSE, LOW], ids=lambda s: s.shape)
def test_measured_volumes_are_the_requested_ones_within_two_percent(stack):
  for patient in patients(8, stack):
    for phase in cardiac.PHASES:
      ml = render(patient, phase, stack).volumes_ml
      assert ml['lv'] == pytest.approx(patient[f'LV{phase}V'], rel=0.02)
      assert ml['rv'] == pytest.approx(patient[f'RV{phase}V'], rel=0.02)


def test_hard_labels_hold_the_requested_volumes_at_full_resolution():
  for patient in patients(8):
    for phase in cardiac.PHASES:
      labels = render(patient, phase).labels
      for label, side in ((1, 'LV'), (3, 'RV')):
        ml = (labels == label).sum() * FULL.voxel_ml
        assert ml == pytest.approx(patient[f'{side}{phase}V'], rel=0.05)


def test_volumes_reported_are_the_sum_of_the_fractions():
  rendered = render(patients(1)[0], 'ED')
  for label, name in enumerate(cardiac.LABELS[1:], start=1):
    ml = rendered.fractions[label].sum(dtype=np.float64) * FULL.voxel_ml
    assert rendered.volumes_ml[name] == pytest.approx(ml)


@pytest.mark.parametrize('stack', [FULL, SMALL, COARSE], ids=lambda s: s.shape)
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


def test_fractions_are_disjoint_shares_and_labels_the_largest_one():
  for patient in patients(3, SMALL):
    rendered = render(patient, 'ES', SMALL)
    assert rendered.fractions.min() >= 0
    np.testing.assert_allclose(rendered.fractions.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(rendered.labels, rendered.fractions.argmax(0))
    assert set(np.unique(rendered.labels)) == {0, 1, 2, 3}


def test_the_wall_between_the_areas_is_as_thick_as_requested():
  for patient in patients(6):
    for phase in cardiac.PHASES:
      areas = render(patient, phase).fractions.sum((2, 3)) * 1.83**2
      middle = np.argmax(areas[1])  # the equator
      whole = areas[1, middle] + areas[2, middle]
      thickness = np.sqrt(whole / np.pi) - np.sqrt(areas[1, middle] / np.pi)
      assert thickness == pytest.approx(patient[f'MYO{phase}THICK'], abs=1)


def test_end_systole_has_smaller_cavities_and_a_thicker_wall_of_about_equal_mass():
  for patient in patients(6):
    diastole, systole = (render(patient, phase).volumes_ml for phase in ('ED', 'ES'))
    assert systole['lv'] < diastole['lv'] and systole['rv'] < diastole['rv']
    assert patient['MYOESTHICK'] > patient['MYOEDTHICK']
    assert systole['myocardium'] == pytest.approx(diastole['myocardium'], rel=0.2)


def test_ejection_fractions_follow_from_the_volumes():
  for patient in patients(20):
    for side in ('LV', 'RV'):
      diastole, systole = patient[f'{side}EDV'], patient[f'{side}ESV']
      ejection = 100 * (1 - systole / diastole)
      assert patient[f'{side}EF'] == pytest.approx(ejection, abs=0.01)


def test_slices_from_depth_on_are_zero_and_the_others_are_not():
  for patient in patients(4, SMALL):
    for phase in cardiac.PHASES:
      rendered = render(patient, phase, SMALL)
      depth = patient['DEPTH']
      assert not rendered.image[depth:].any() and not rendered.labels[depth:].any()
      assert (rendered.image[:depth] > 0).mean((1, 2)).min() > 0.99


@pytest.mark.parametrize('stack', [FULL, SMALL, COARSE, LOW], ids=lambda s: s.shape)
def test_the_heart_lies_within_the_real_slices_and_the_field_of_view(stack):
  for patient in patients(25, stack):
    labels = render(patient, 'ED', stack).labels
    for side in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
      assert not side.any()
    top = patient['apex_mm'] + patient['long_axis_mm']['ED']
    assert top <= patient['DEPTH'] * stack.spacing_mm[0]


def test_the_same_arguments_give_the_same_bits_and_others_do_not():
  first, again = (
    render(sample_patient(3, 7, 'private', SMALL), 'ES', SMALL) for _ in range(2)
  )
  np.testing.assert_array_equal(first.image, again.image)
  np.testing.assert_array_equal(first.fractions, again.fractions)
  base = sample_patient(3, 7, 'private', SMALL)
  for other in ((4, 7, 'private'), (3, 8, 'private'), (3, 7, 'public')):
    assert sample_patient(*other, SMALL)['texture_seed'] != base['texture_seed']
  stream = sample_patient(3, 7, 'private', SMALL, 'b')
  assert stream['texture_seed'] != base['texture_seed']


def test_the_two_phases_share_the_chest_but_not_the_noise():
  patient = sample_patient(0, 0, 'public')
  images = [render(patient, phase).image for phase in cardiac.PHASES]
  difference = (images[0] - images[1])[: patient['DEPTH'], :14]
  assert 0 < np.abs(difference).mean() < 0.03
  assert np.corrcoef(images[0][:8, :14].ravel(), images[1][:8, :14].ravel())[0, 1] > 0.9


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


def test_affine_puts_the_middle_of_the_stack_at_the_origin():
  affine = SMALL.affine
  np.testing.assert_allclose(affine @ [5.5, 23.5, 23.5, 1], [0, 0, 0, 1])
  step = affine @ [1, 0, 0, 0], affine @ [0, 1, 0, 0], affine @ [0, 0, 1, 0]
  np.testing.assert_allclose(step, [[0, 0, 10, 0], [0, 3.66, 0, 0], [3.66, 0, 0, 0]])


def test_blood_is_bright_muscle_dark_and_intensities_about_one_at_most():
  for patient in patients(3, SMALL):
    rendered = render(patient, 'ED', SMALL)
    blood, muscle = (
      rendered.image[rendered.fractions[label] > 0.95].mean() for label in (1, 2)
    )
    assert blood > 1.5 * muscle
    assert rendered.image.dtype == np.float32
    assert rendered.image.min() >= 0 and rendered.image.max() < 1.6


def test_sites_differ_in_intensity_and_noise():
  blood, noise = {}, {}
  for site in ('public', 'private'):
    rendered = [
      [
        render(sample_patient(1, index, site, SMALL), phase, SMALL)
        for phase in ('ED', 'ES')
      ]
      for index in range(6)
    ]
    blood[site] = np.mean([ed.image[ed.labels == 1].mean() for ed, _ in rendered])
    # Behind the heart the two phases differ by their noise alone.
    noise[site] = np.mean(
      [np.std(ed.image[:7, :6] - es.image[:7, :6]) for ed, es in rendered]
    )
  assert blood['private'] < 0.9 * blood['public']
  assert noise['private'] > 1.3 * noise['public']


def test_sites_differ_in_population_and_attributes_correlate():
  drawn = {
    site: cardiac.population(0, 400, site, SMALL.shape, SMALL.spacing_mm)
    for site in ('public', 'private')
  }

  def column(site, name):
    return np.array([row[name] for row in drawn[site]], float)

  assert column('private', 'AGE').mean() > column('public', 'AGE').mean() + 8
  wall = 'MYOEDTHICK'
  assert column('private', wall).mean() > column('public', wall).mean() + 0.5
  assert column('private', 'LVEF').mean() < column('public', 'LVEF').mean() - 3
  men = column('public', 'SEX') == 1
  volume = column('public', 'LVEDV')
  assert volume[men].mean() > volume[~men].mean() + 15
  assert np.corrcoef(volume, column('public', 'RVEDV'))[0, 1] > 0.6
  assert 0.4 < column('public', 'ESED').mean() < 0.6


def test_every_drawn_attribute_is_in_the_schema_and_its_range():
  for site in ('public', 'private'):
    for row in cardiac.population(3, 300, site):
      assert set(row) == set(CARDIAC_SCHEMA.names)
      assert CARDIAC_SCHEMA.out_of_range(row) == []
      assert np.isfinite(CARDIAC_SCHEMA.encode(row)).all()


def test_bmi_shows_as_fat():
  thin, heavy = (
    render(sample_patient(0, 1, 'public') | {'BMI': bmi, 'ANGLE': 0.0}, 'ED').image
    for bmi in (20.0, 35.0)
  )
  assert (heavy[:8, 70:] > 0.6).mean() > 1.3 * (thin[:8, 70:] > 0.6).mean()


def test_a_cohort_holds_two_readable_records_of_every_patient():
  cohort = cardiac.cohort('public', 3, 0, 'public', SMALL.shape, SMALL.spacing_mm)
  assert len(cohort) == 3 and cohort.schema is CARDIAC_SCHEMA
  assert [r.id for r in cohort.records[:2]] == ['public-P00000_ED', 'public-P00000_ES']
  for records in cohort.patients.values():
    assert [record.attributes['ESED'] for record in records] == [1, 0]
    for record in records:
      image, labels = record.source.read()
      assert image.array.shape == labels.array.shape == SMALL.shape
      np.testing.assert_array_equal(image.affine, SMALL.affine)
      ml = (labels.array == 1).sum() * SMALL.voxel_ml
      assert ml == pytest.approx(record.attributes[f'LV{record.phase}V'], rel=0.1)


def test_cohorts_of_different_name_share_neither_patients_nor_draws():
  made = {name: cardiac.cohort(name, 20) for name in ('public', 'private', 'test')}
  cohorts.check_disjoint(made)
  drawn = [
    tuple(record.attributes.items())
    for cohort in made.values()
    for record in cohort.records
  ]
  requests = [tuple(row.items()) for row in cardiac.population(0, 40)]
  assert len(set(drawn + requests)) == len(drawn) + len(requests)


def test_a_longer_cohort_begins_with_the_shorter_one():
  short, long = cardiac.cohort('a', 2), cardiac.cohort('a', 5)
  assert long.records[:4] == short.records


def test_the_fingerprint_changes_with_everything_the_volume_depends_on():
  source = cardiac.PhantomSource(0, 0, 'public', 'a', 'ED', SMALL)
  changes = {
    'seed': 1,
    'index': 1,
    'site': 'private',
    'stream': 'b',
    'phase': 'ES',
    'stack': COARSE,
  }
  others = [
    dataclasses.replace(source, **{name: value}).fingerprint()
    for name, value in changes.items()
  ]
  again = cardiac.PhantomSource(
    0, 0, 'public', 'a', 'ED', Stack((12, 48, 48), (10, 3.66, 3.66))
  )
  assert len({source.fingerprint(), *others}) == 7
  assert again.fingerprint() == source.fingerprint()


def test_a_coarse_stack_shows_the_patient_of_the_fine_one():
  patient = sample_patient(0, 2, 'public', SMALL)
  fine = render(patient, 'ED', Stack((12, 96, 96))).image
  fine = fields.pool(fine, (1, 2, 2))
  coarse = render(patient, 'ED', SMALL).image
  assert np.corrcoef(fine.ravel(), coarse.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
  'call',
  [
    lambda: sample_patient(0, 0, 'elsewhere'),
    lambda: sample_patient(-1, 0, 'public'),
    lambda: sample_patient(0, 0, 'public', Stack((4, 48, 48), (10, 3.66, 3.66))),
    lambda: Stack((13, 96), (10, 1.83)),
    lambda: Stack((13, 96, 96), (10, 0, 1.83)),
    lambda: render(sample_patient(0, 0, 'public'), 'end-diastole'),
    lambda: render(sample_patient(0, 0, 'public'), 'ED', Stack((6, 96, 96))),
    lambda: render(sample_patient(0, 0, 'public'), 'ED', Stack((13, 12, 12))),
    lambda: cardiac.cohort('public', 0),
  ],
)
def test_what_cannot_be_drawn_is_refused_by_name(call):
  with pytest.raises(ValueError, match=r'expected|same stack'):
    call()


def test_a_small_volume_renders_in_milliseconds():
  patient = sample_patient(0, 0, 'public', SMALL)
  seconds = []
  for _ in range(10):
    start = time.perf_counter()
    render(patient, 'ED', SMALL)
    seconds.append(time.perf_counter() - start)
  assert min(seconds) < 0.05  # about 0.004 on one idle core
