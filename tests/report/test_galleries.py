"""Laws of the sections made of images: captions, marks, labels, the viewer's sheets."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ldm_jax.report import figures, galleries

X = np.random.default_rng(0).random((3, 4, 6, 5)).astype(np.float32)


def test_an_image_holds_its_own_pixels_and_size():
  png = figures.encode_png(np.arange(12, dtype=np.uint8).reshape(3, 4))
  found = galleries.image(png, 'what it shows')
  assert (found['width'], found['height'], found['alt']) == (4, 3, 'what it shows')
  kind, _, data = found['src'].partition(',')
  assert kind == 'data:image/png;base64' and base64.b64decode(data) == png


@pytest.mark.parametrize('images', [{}, {'real': None}, {'real': X[:0]}])
def test_without_volumes_there_is_no_gallery(images):
  assert galleries.samples(images) is None


def test_samples_come_first_in_the_viewer_and_last_among_the_montages():
  found = galleries.samples({'real': X, 'synthetic': X[:2], 'internal': ['real']})
  assert [m['title'] for m in found['montages']] == ['Real', 'Synthetic']
  assert [m['internal'] for m in found['montages']] == [True, False]
  assert [s['id'] for s in found['sheets']] == ['sheet-synthetic', 'sheet-real']
  sheet = found['sheets'][0]
  assert [sheet[key] for key in ('num', 'depth')] == [2, 4]
  pixels = Image.open(io.BytesIO(base64.b64decode(sheet['src'].split(',')[1])))
  assert pixels.size == (4 * sheet['width'], 2 * sheet['height'])


def test_volumes_of_a_patient_stand_beside_each_other_under_its_number():
  images = {'real': X, 'synthetic': X, 'patients': np.array([0, 0, 1])}
  real, synthetic = galleries.samples(images)['montages']
  labels = [column['label'] for column in synthetic['columns']]
  assert labels == ['patient 1', 'patient 1', 'patient 2']
  assert {column['label'] for column in real['columns']} == {''}


def test_rows_share_one_window_of_contrast():
  dark = galleries.samples({'real': X, 'synthetic': 0.5 * X})
  alone = galleries.samples({'synthetic': 0.5 * X})
  assert dark['montages'][1]['columns'] != alone['montages'][0]['columns']


def test_slices_are_named_and_flat_images_are_2d():
  assert (
    '(slices 1, 3, 4 of 4;' in galleries.samples({'real': X})['montages'][0]['note']
  )
  assert '(2D;' in galleries.samples({'real': X[:, :1]})['montages'][0]['note']


def test_a_sweep_is_labelled_with_the_values_of_its_columns():
  (strip,) = galleries.sweeps({'LV': ([60.0, 'large', 1e-5], X)})
  labels = [column['label'] for column in strip['columns']]
  assert labels == ['60', 'large', '10⁻⁵'] and strip['note'] == 'from 60 to 10⁻⁵'
  assert strip['columns'][1]['image']['alt'] == 'sample with LV, large'


def test_anterior_is_at_the_top_of_volumes_and_flat_pictures_stay():
  assert (galleries.upright(X) == X[:, :, ::-1]).all()
  assert (galleries.upright(X[:, :1]) == X[:, :1]).all()


def test_a_sheet_says_the_size_of_its_voxels_in_mm():
  (sheet,) = galleries.samples({'real': X}, (12.0, 5.5, 5.5))['sheets']
  assert sheet['spacing'] == '12 5.5 5.5'
  large = np.zeros((2, 60, 200, 200), np.float32)
  (thinned,) = galleries.samples({'real': large}, (1, 1, 2), 1_000_000)['sheets']
  assert thinned['spacing'] == '4 2 4'
  (cubes,) = galleries.samples({'real': X})['sheets']
  assert cubes['spacing'] == '1 1 1'


def test_counterfactuals_carry_mark_scale_and_truth():
  images = {'counterfactuals': [(X[0], X[1], X[1] - X[0], 'sex = M')]}
  plain = galleries.counterfactuals(images)
  known = galleries.counterfactuals(
    {**images, 'truths': X[2:], 'internal': ['counterfactuals']}
  )
  assert (plain['internal'], plain['truths']) == (False, False)
  assert (known['internal'], known['truths']) == (True, True)
  (case,), (with_truth,) = plain['cases'], known['cases']
  assert case['title'] == 'sex = M' and '±' in case['note']
  assert with_truth['image']['height'] > 1.5 * case['image']['height']
  assert galleries.counterfactuals({})['cases'] == []
  sheets = known['sheets']
  assert [s['name'] for s in sheets] == ['Source', 'Counterfactual', 'Difference']
  assert all(sheet['internal'] for sheet in sheets)


def test_label_maps_stand_over_samples_and_their_legend_names_all_but_background():
  maps = (X > 0.5).astype(np.uint8)
  found = galleries.labels({'synthetic': X, 'labels': maps}, ['none', 'heart'])
  assert len(found['strip']['columns']) == 3 and not found['strip']['internal']
  assert found['legend'] == [('heart', figures.label_colour(1))]
  assert galleries.labels({'synthetic': X}, ['none', 'heart']) is None
  assert galleries.labels({}, []) is None
