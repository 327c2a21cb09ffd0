"""Laws of the values of evidence: nothing measured is dropped or told twice."""

from ldm_jax.report import evidence


def test_columns_without_a_value_are_left_out():
  entries = {'LV': {'pearson_r': 0.9, 'n': 4}, 'skipped': 'text'}
  found = evidence.agreements(entries)
  assert found['head'] == ['Attribute', 'Pearson r (95 %)', 'Computed from']
  assert [row['cells'] for row in found['rows']] == [['0.9', 'n = 4']]
  assert evidence.agreements({'skipped': 'text'}) is None


def test_attributes_of_both_kinds_share_one_table():
  entries = {'LV': {'mae': 2.0, 'internal': True}, 'sex': {'accuracy': 0.75}}
  found = evidence.agreements(entries)
  assert found['head'] == ['Attribute', 'MAE (95 %)', 'Accuracy (95 %)']
  assert [row['cells'] for row in found['rows']] == [['2', ''], ['', '0.75']]
  assert [row['internal'] for row in found['rows']] == [True, False]


def test_figures_of_other_sections_are_not_image_quality():
  metrics = {'frechet': 1.0, 'new_figure': 2.0}
  metrics |= {name: {'x': 1.0} for name in evidence.OTHER_SECTIONS}
  names = [row['name'] for row in evidence.quality(metrics)]
  assert names == ['Fréchet distance', 'New figure']


def test_the_two_sample_test_has_a_row_of_its_own_and_one_of_real_halves():
  halves = {'auc': 0.5, 'auc_low': 0.3, 'auc_high': 0.7}
  halves |= {'num_real': 4, 'num_synthetic': 4}
  entry = {
    'auc': 0.9,
    'auc_low': 0.8,
    'auc_high': 0.95,
    'num_real': 8,
    'internal': True,
  }
  rows = evidence.quality({'two_sample': {**entry, 'real_halves': halves}})
  assert [row['cells'][0] for row in rows] == ['0.9 (0.8 to 0.95)', '0.5 (0.3 to 0.7)']
  assert [row['cells'][1] for row in rows] == ['8 real', '4 per half']
  assert rows[0]['internal'] and '0.5 if it cannot tell' in rows[0]['note']


def test_a_figure_that_says_nothing_has_its_reason_beside_it():
  metrics = {'frechet': {'value': 1.0, 'says_nothing': 'few'}}
  metrics['two_sample'] = {'auc': 0.6, 'says_nothing': 'wide'}
  notes = [row['note'] for row in evidence.quality(metrics)]
  assert [
    note[-len(end) :] for note, end in zip(notes, ('few', 'wide'), strict=True)
  ] == [
    'few',
    'wide',
  ]


def test_each_space_of_memorisation_is_told_apart_and_inherits_the_mark():
  entry = {'internal': True, 'features': {'auc': 0.5}, 'voxels': {'auc': 0.6}}
  found = evidence.memorisation(entry)
  assert [space['name'] for space in found] == ['feature', 'voxel']
  assert all(row['internal'] for space in found for row in space['rows'])
  assert evidence.memorisation({'auc': 0.5})[0]['name'] == ''
  assert evidence.memorisation({}) == []


def test_samples_near_a_training_scan_are_told_with_the_nearest_one():
  entry = {'auc': 0.5, 'num_flagged': 2, 'flagged': [{'synthetic': 3, 'ratio': 0.8}]}
  (found,) = evidence.memorisation(entry)
  assert found['flagged'] == {'num': '2', 'nearest': 3, 'ratio': '80 %'}
  (none,) = evidence.memorisation({**entry, 'num_flagged': 0})
  assert none['flagged'] is None


def test_the_share_near_a_training_scan_stands_beside_the_expected_one():
  entry = {'auc': 0.5, 'fraction': 0.04, 'fraction_low': 0.01, 'fraction_high': 0.1}
  (found,) = evidence.memorisation({**entry, 'expected': 0.05, 'n_train': 40})
  assert found['rows'][1]['cells'] == [
    '4 % (1 % to 10 %) (expected 5 %)',
    '40 training',
  ]


def test_reconstruction_names_units():
  rows = evidence.reconstruction({'psnr': 27.5, 'test': {'ssim': 0.9}})
  assert [row['name'] for row in rows] == ['PSNR (dB)', 'SSIM, test']


def test_training_without_losses_has_no_panel():
  assert evidence.training([{'stage': 'prepare', 'step': 1}]) == []


def figure(value, internal=True):
  return {'value': value, 'low': 0.0, 'high': 1.0, 'n': 4, 'internal': internal}


def test_utility_has_a_row_for_each_arm_and_its_share_of_the_real_one():
  arm = {'dice': figure(0.8), 'hd95_mm': figure(9.0), 'scans': '12'}
  entry = {
    'real': arm,
    'synthetic_3x': {**arm, 'dice': figure(0.6), 'mae': {'AGE': figure(5.0)}},
    'share_of_real': {'synthetic_3x': {'dice': figure(0.75)}},
    'labels_from': 'the model',
    'steps': 200,
  }
  found = evidence.utility(entry)
  assert found['labels_from'] == 'the model' and found['steps'] == 200
  assert found['head'][-2:] == ['AGE, mean error (95 %)', 'Scans']
  real, synthetic = found['rows']
  assert real['cells'][2] == '' and synthetic['cells'][2].startswith('0.75')
  assert synthetic['name'] == 'synthetic, 3x' and synthetic['internal']
  # What is left of it in a report that may leave.
  assert evidence.utility({'labels_from': 'the model', 'steps': 200}) is None
  assert evidence.utility({}) is None


def test_groups_stand_once_with_their_distances_and_dice():
  distances = {'SEX': {'F': {'kid': figure(0.1), 'frechet': None}}}
  dice = {'SEX': {'F': {'real': figure(0.9)}, 'M': {'real': figure(0.7)}}}
  found = evidence.by_group(distances, dice)
  assert found['head'][-1] == 'Dice, real (95 %)'
  assert [row['name'] for row in found['rows']] == ['SEX: F', 'SEX: M']
  assert found['rows'][1]['cells'][0] == '' and found['rows'][0]['internal']
  assert evidence.by_group({}, {}) is None


def test_label_maps_of_patients_are_marked_and_those_of_samples_not():
  part = {'single_component': {'heart': figure(0.9)}}
  drawn = {'single_component': {'heart': figure(0.8, internal=False)}}
  found = evidence.label_maps(
    {'synthetic': drawn, 'real': part}, {'heart': figure(0.7, internal=False)}
  )
  assert [row['internal'] for row in found['rows']] == [False, False, True]
  assert found['rows'][0]['cells'][0].startswith('0.7')
  assert evidence.label_maps({}, {}) is None


def test_what_volumes_of_a_patient_show_is_marked_where_it_read_real_ones():
  r = {'pearson_r': 0.9, 'pearson_r_low': 0.8, 'pearson_r_high': 0.95, 'n': 24}
  entry = {
    'likeness': {'real': figure(0.6)},
    'same': {'mass': {'synthetic': {**r, 'mae': 4.0}, 'real': {**r, 'internal': True}}},
    'ejection': {
      'LVEF': {
        'synthetic': {**figure(55.0, internal=False), 'quantiles': [30.0, 55.0, 70.0]},
        'distance': figure(3.0),
      }
    },
  }
  rows = evidence.within_patient(entry)['rows']
  assert [row['name'] for row in rows] == [
    *('SSIM, real', 'mass, synthetic', 'mass, real'),
    *('LVEF, synthetic', 'LVEF, distance'),
  ]
  assert [row['internal'] for row in rows] == [True, False, True, False, True]
  assert rows[1]['cells'] == ['0.9 (0.8 to 0.95)', 'n = 24']
  assert '30 to 70' in rows[3]['note'] and '4 apart' in rows[1]['note']
  assert evidence.within_patient({}) is None
