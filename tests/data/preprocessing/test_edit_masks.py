"""Laws of what counterfactuals keep."""

import nibabel as nib
import numpy as np
import pytest

from ldm_jax.data import folder_scans
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.preprocessing import edit_masks, preprocess

SCHEMA = Schema((Attribute('age', low=20, high=90),))
SHAPE = (10, 12, 9)  # of the file
SPEC = preprocess.Spec((6, 10, 10), (2.4, 1.0, 1.2))


@pytest.fixture(scope='module')
def split(tmp_path_factory):
  """One oblique, anisotropic scan with labels 1 and 2, and mask files beside it."""
  root = tmp_path_factory.mktemp('scans')
  rng = np.random.default_rng(0)
  angle = 0.3
  turn = np.array(
    [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
  )
  affine = np.eye(4)
  affine[:3, :3] = turn @ np.diag([-1.2, 1.0, 2.4])
  affine[:3, 3] = 3, -7, 11
  labels = np.zeros(SHAPE, np.uint8)
  labels[3:6, 4:8, 3:6] = 1
  labels[6:8, 4:8, 3:6] = 2
  mask = np.zeros(SHAPE, np.uint8)
  mask[2:7, 3:9, 2:7] = 1
  for name, array in (
    ('a', rng.random(SHAPE).astype(np.float32)),
    ('a_seg', labels),
    ('a_mask', mask),
    ('empty', mask * 0),
  ):
    nib.save(nib.Nifti1Image(array, affine), root / f'{name}.nii.gz')
  moved = affine.copy()
  moved[0, 3] += 5
  nib.save(nib.Nifti1Image(mask, moved), root / 'moved.nii.gz')
  source = FileSource(str(root / 'a.nii.gz'), str(root / 'a_seg.nii.gz'))
  cohort = Cohort('folder', SCHEMA, (Record('a', 'a', source),))
  found = folder_scans.Scans(cohort, SPEC)
  found.root, found.file_mask = root, mask
  return found


def kept(split, **options):
  return edit_masks.kept(split, np.array([0]), **options)


def test_nothing_limits_an_editor_that_no_mask_was_given(split):
  assert kept(split) is None
  assert edit_masks.on_source_grid(split, 0, None) is None


def test_a_mask_file_lies_where_the_scan_lies_on_both_grids(split):
  path = str(split.root / '{id}_mask.nii.gz')
  keep = kept(split, file=path)
  assert keep.shape == (1, *SPEC.shape, 1)
  # The same region, preprocessed as the scan's own labels are, is the one to edit.
  source = FileSource(
    str(split.root / 'a.nii.gz'), str(split.root / 'a_mask.nii.gz')
  ).read()
  edited = preprocess.apply(SPEC, *source).label > 0
  np.testing.assert_array_equal(~keep[0, ..., 0], edited)
  on_file = edit_masks.on_source_grid(split, 0, keep[0, ..., 0], path)
  back = preprocess.invert(edited, split.record(0)).source.restore(on_file)
  assert back.shape == SHAPE
  assert np.all(back[split.file_mask == 0])
  assert not np.all(back)


def test_labels_choose_what_may_change_and_keep_wins(split):
  labels = split.labels([0])[0]
  edit = ~kept(split, edit_labels=(1,))[0, ..., 0]
  np.testing.assert_array_equal(edit, labels == 1)
  np.testing.assert_array_equal(kept(split, keep_labels=(2,))[0, ..., 0], labels == 2)
  both = ~kept(split, edit_labels=(1,), keep_labels=(2,), margin=1)[0, ..., 0]
  assert not np.any(both & (labels == 2)) and np.all(both[labels == 1])
  assert both.sum() > edit.sum()


def test_a_region_grows_by_its_margin_within_its_own_scan():
  regions = np.zeros((2, 5, 5, 5), bool)
  regions[0, 2, 2, 2] = True
  grown = edit_masks._grown(regions, 1)
  assert grown[0].sum() == 7 and not grown[1].any()


@pytest.mark.parametrize(
  'options, words',
  [
    ({'file': 'moved.nii.gz'}, 'counterfactual.mask of a.*5.00 mm away'),
    ({'file': 'none.nii.gz'}, 'counterfactual.mask of a'),
    ({'file': 'empty.nii.gz'}, 'Nothing of a may be edited'),
    ({'edit_labels': (7,)}, 'Nothing of a may be edited'),
  ],
  ids=str,
)
def test_a_mask_that_cannot_be_meant_is_refused(split, options, words):
  if 'file' in options:
    options = {'file': str(split.root / options['file'])}
  with pytest.raises(ValueError, match=words):
    kept(split, **options)


def test_labels_of_scans_without_labels_are_refused(split):
  source = FileSource(str(split.root / 'a.nii.gz'))
  plain = folder_scans.Scans(
    Cohort('folder', SCHEMA, (Record('a', 'a', source),)), SPEC
  )
  with pytest.raises(ValueError, match=r'no labels.*counterfactual\.mask'):
    kept(plain, edit_labels=(1,))
