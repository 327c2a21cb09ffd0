"""Laws of ventricular volumes from labels."""

import numpy as np
import pytest

from ldm_jax.data.cohorts import label_values
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.layouts.shared import ventricles

AFFINE = np.diag([1.0, 2.0, 10.0, 1.0])


@pytest.fixture
def sources(tmp_path, save_nifti):
  """ED with 10 LV and 5 RV voxels of 0.02 ml, ES with 4 and 2."""
  found = {}
  for phase, (lv, rv) in (('ED', (10, 5)), ('ES', (4, 2))):
    label = np.zeros((6, 5, 4), np.uint8)
    label.reshape(-1)[:lv], label.reshape(-1)[lv : lv + rv] = 1, 3
    save_nifti(tmp_path / f'{phase}.nii', affine=AFFINE)
    save_nifti(tmp_path / f'{phase}_gt.nii.gz', label, AFFINE)
    found[phase] = ventricles.source(tmp_path / phase, label_values.MNMS)
  return found


def test_volumes_are_counted_voxels_and_fractions_follow(sources):
  found = ventricles.measure(sources, [])
  assert found == pytest.approx(
    {'LVEDV': 0.2, 'RVEDV': 0.1, 'LVESV': 0.08, 'RVESV': 0.04, 'LVEF': 60, 'RVEF': 60}
  )


def test_a_damaged_label_is_a_note_and_its_volumes_are_missing(sources, tmp_path):
  (tmp_path / 'ES_gt.nii.gz').write_bytes(b'damaged')
  notes = []
  found = ventricles.measure(sources, notes)
  assert found['LVESV'] is None and found['LVEF'] is None
  assert found['LVEDV'] == pytest.approx(0.2) and 'not measured' in notes[0]


def test_a_label_that_changed_is_measured_again(sources, tmp_path, save_nifti):
  ventricles.measure(sources, [])
  save_nifti(tmp_path / 'ED_gt.nii.gz', np.ones((6, 5, 4), np.uint8), AFFINE)
  assert ventricles.measure(sources, [])['LVEDV'] == pytest.approx(120 * 0.02)


def test_each_phase_is_a_record_with_shared_values_and_its_own_phase(sources):
  notes = []
  schema = Schema((*ventricles.ATTRIBUTES,)).select(('LVEF', 'ESED', 'DEPTH'))
  ed, es = ventricles.records('p', sources, {'LVEF': 55}, schema, notes, part='train')
  assert ed.attributes == {'LVEF': 55, 'ESED': 1, 'DEPTH': 4}
  assert (es.id, es.phase, es.part, es.attributes['ESED']) == ('p_ES', 'ES', 'train', 0)


def test_body_mass_index_needs_both_and_no_zero():
  assert ventricles.bmi(200.0, 80.0) == 20
  assert ventricles.bmi(0.0, 80.0) is None and ventricles.bmi(180.0, None) is None
