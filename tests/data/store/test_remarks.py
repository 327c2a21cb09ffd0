"""Laws of remarks: one line a kind, with the files and what to do."""

from ldm_jax.data.store import remarks
from ldm_jax.data.store.remarks import Scan


def test_a_kind_of_remark_is_one_line_that_names_the_files():
  scans = [
    Scan('a.nii', 'a', [('orientation', 'codes are 0')]),
    Scan('b.nii', 'b', [('orientation', 'codes are 0'), ('unit', 'metres')]),
    Scan('c.nii', 'c', [], filled=0.05),
  ]
  told = remarks.lines(scans)
  assert len(told) == 3
  assert '2 of 3 scans (a.nii, b.nii)' in told[0] and 'orientation to strict' in told[0]
  assert 'b.nii' in told[1] and 'c.nii' in told[2] and '5 %' in told[2]
  assert remarks.lines([Scan('c.nii', 'c', [])]) == []


def test_values_of_no_class_are_told_with_voxels_and_patients():
  scans = [
    Scan('a', 'p1', [], labels={'0': 90, '1': 5, '7': 3}),
    Scan('b', 'p1', [], labels={'0': 90, '7': 4}),
    Scan('c', 'p2', [], labels={'7': 1, '255': 2}),
  ]
  told = remarks.unlisted_labels(scans, (0, 1))
  assert len(told) == 2
  assert 'label value 7' in told[0] and '8 voxels of 2 patients (p1, p2)' in told[0]
  assert '--config.evaluate.labels=(0,1,7)' in told[0] and '255' in told[1]
  assert remarks.unlisted_labels(scans, (0, 1, 7, 255)) == []


def test_labels_of_background_alone_are_told_unless_one_scan_has_a_class():
  empty = [Scan('a', 'p1', [], labels={'0': 9}), Scan('b', 'p2', [], labels={'0': 9})]
  told = remarks.unlisted_labels([*empty, Scan('c', 'p3', [])], (0, 1))
  assert len(told) == 1 and 'all 2 scans hold background' in told[0]
  some = Scan('c', 'p3', [], labels={'0': 8, '1': 1})
  assert remarks.unlisted_labels([*empty, some], (0, 1)) == []
  assert remarks.unlisted_labels([Scan('c', 'p3', [])], (0, 1)) == []
