"""Laws of matching ids: half of them alone is told, with examples of both sides."""

import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts import matching
from ldm_jax.data.cohorts.attributes import Attribute, Schema

SCHEMA = Schema((Attribute('age', low=18, high=90),))


def test_ids_that_differ_in_zeros_or_prefixes_are_told_to_agree_but_for_these():
  rows, scans = ['50771', '50772', '3'], ['sub-0050771', 'sub-0050772', '3']
  told = matching.compare(rows, scans, 'participants.tsv').headline
  for words in ('2 of 3', '50771', 'sub-0050771', '2 agree except for leading zeros'):
    assert words in told


def test_ids_that_differ_by_leading_zeros_alone_belong_together():
  same = matching.same_patients
  rows, scans = ['50772', 'P-7', '9.0', 'x'], ['0050772', 'P-007', '9', 'x', 'y']
  assert same(rows, scans) == dict(zip(scans, rows, strict=False))
  # Where zeros distinguish patients, only equal ids belong together.
  assert same(['1', '01'], ['001', '01']) == {'01': '01'}
  assert same(['7', '70'], ['70']) == {'70': '70'}
  told = matching.compare(rows, scans, 't')
  assert (told.rows_alone, told.scans_alone) == ((), ('y',))


def test_ids_of_one_cohort_that_differ_by_zeros_alone_are_told():
  (told,) = matching.spelt_alike(['007', '7', '8', '7.0', 'P-1', 'P-01'])
  assert '2 times' in told and '007 and 7 and 7.0' in told and 'P-01 and P-1' in told
  assert matching.spelt_alike(['7', '70', '700', 'P-7']) == []


def test_few_ids_alone_are_no_headline():
  many = [f'p{n}' for n in range(100)]
  assert not matching.compare(many[1:], many[:-1], 't').headline
  assert matching.compare(many[:85], many, 't').headline
  assert not matching.compare(many, many, 't').headline


def test_at_most_three_examples_of_each_side_are_told():
  rows, scans = [f'a{n}' for n in range(9)], [f'b{n}' for n in range(9)]
  told = matching.compare(rows, scans, 't').headline
  assert 'a2' in told and 'a3' not in told and 'b2' in told and 'b3' not in told


@pytest.mark.parametrize(
  ('pattern', 'names', 'labels', 'expected'),
  [
    ('{subject}.nii*', ['P1.nii', 'P2.nii.gz', 'x.txt'], '', {'P2'}),
    ('{subject}.nii*', ['P1.nii', 'P1_T2.nii', '001.nii'], '', {'001'}),
    ('{subject}.nii*', ['P2.nii', 'P2_seg.nii'], '{subject}_seg.nii', {'P2'}),
    ('s/{subject}/*.nii', ['s/P1/a.nii', 's/P2/a.nii', 'P3/a.nii'], '', {'P2'}),
    ('{id}/{id}_{site}.nii', ['P1/P1_a.nii', 'P2/P2_b.nii', 'P3/P4_b.nii'], '', {'P2'}),
    ('*.nii', ['P2.nii'], '', set()),
    ('image', ['P2.nii'], '', set()),
  ],
)
def test_files_of_unknown_patients_are_found_and_no_others(
  tmp_path, pattern, names, labels, expected
):
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  found = matching.strangers(tmp_path, pattern, ('subject', 'id'), ['P1'], labels)
  assert found == expected


def table(path, ids):
  rows = [f'{name}\t{30 + n}' for n, name in enumerate(ids)]
  path.write_text('\n'.join(['participant_id\tage', *rows]) + '\n')


def test_a_folder_half_of_whose_ids_do_not_match_says_so(tmp_path, save_nifti):
  for name in ('a', 'b', 'x007', 'x008'):
    save_nifti(tmp_path / f'{name}.nii')
  table(tmp_path / 'participants.tsv', ['a', 'b', '7', '8'])
  cohort = layouts.LAYOUTS['folder'].read(str(tmp_path), SCHEMA)
  assert cohort.matching.rows_alone == ('7', '8')
  assert cohort.matching.scans_alone == ('x007', 'x008')
  parts = cohort.split({'public': 0.5, 'private': 0.5}, 0)
  assert {part.matching for part in parts.values()} == {cohort.matching}


@pytest.mark.parametrize('layout', ['bids', 'decathlon'])
def test_a_data_set_whose_table_has_other_ids_says_so(tmp_path, save_nifti, layout):
  place = {'bids': 'sub-{0}/anat/sub-{0}_T1w.nii.gz', 'decathlon': 'images/{0}.nii.gz'}
  for name in ('known', 'x1', 'x2'):
    path = tmp_path / place[layout].format(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_nifti(path)
  table(tmp_path / 'participants.tsv', ['known', 'y1', 'y2'])
  told = layouts.LAYOUTS[layout].read(str(tmp_path), SCHEMA).matching.headline
  assert '2 of 3' in told and 'y1' in told and 'x1' in told
