"""Laws of the doctor's words: what the terminal tells, what a page must not."""

import math

import pytest

from ldm_jax.report import doctor_text


def test_a_headline_of_several_cohorts_is_told_once_and_marked(looks):
  looks['public'].findings['bare'] = ['zeros']
  looks['private'].findings |= {'bare': ['zeros'], 'coarse': ['few voxels']}
  found = doctor_text.headlines(looks, ('private',))
  assert [(e['cohorts'], e['internal']) for e in found] == [
    (['public', 'private'], True),
    (['private'], True),
  ]
  assert found[1]['text'] == 'few voxels' + doctor_text.SEE_GRID
  lines = doctor_text.headline_lines(found).splitlines()
  assert lines[0] == 'WARNING public, private [INTERNAL]: zeros'
  assert doctor_text.headline_lines(found, colour=True).startswith('\033[1;33mWARNING')
  assert doctor_text.headline_lines([]) == ''


def test_the_terminal_tells_findings_and_how_many_more(looks):
  findings = looks['private'].findings
  findings['odd'] = [f'P{i}' for i in range(8)]
  text = doctor_text.cohort_lines(findings)
  assert text.startswith('Cohort private: 3 patients, 4 scans (4 inspected, 1 with')
  assert 'Unlike the rest: 8' in text and 'and 3 more' in text
  assert 'patients by sex' in text and 'F (2), M (1)' in text
  assert 'lowest intensity' in text and 'highest intensity' not in text


def test_the_terminal_names_kinds_of_what_was_found_of_private_patients(looks):
  findings = looks['private'].findings
  findings['odd'] = [f'P{i}' for i in range(8)]
  first, *rest = doctor_text.cohort_lines(findings, internal=True).splitlines()
  assert first == 'Cohort private: 3 patients [INTERNAL]'
  assert 'Unlike the rest' in rest[0] and len(rest) == 1
  assert not any(word in rest[0] for word in ('P1', 'intensity', '8'))


def test_the_plan_is_told_with_refusals_and_the_outlook(plan):
  text = doctor_text.plan_lines({**plan, 'faults': ['too large']}, ['P1 stands twice'])
  assert text.startswith('IN TWO COHORTS: 1\n  - P1 stands twice\nCost')
  assert 'refused: too large' in text
  assert 'At N = 13 and epsilon = 10 with full' in text and doctor_text.ADVICE in text
  assert 'Privacy' not in doctor_text.plan_lines({**plan, 'noise': []}, [])


def test_the_configured_run_comes_before_the_strictest_budget(plan):
  assert [row['epsilon'] for row in doctor_text.outlook(plan)] == [10, 1]
  assert doctor_text.outlook({'noise': []}) == []


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'fault': 'memory'}, 'would be refused: memory'),
    ({'same': True}, 'fits the scans'),
    ({}, '3 of 4 scans keep few voxels'),
    ({'now': {'poor': 0, 'inside': 0.5}}, 'covers 50% of the extent'),
    ({'now': {'poor': 0, 'inside': 1.0}}, 'finer'),
  ],
)
def test_the_most_important_difference_of_the_grids_is_told(grid, changes, words):
  assert words in doctor_text.grid_sentence({**grid, **changes})


def test_both_grids_and_the_command_are_told_where_they_differ(grid):
  text = doctor_text.grid_lines(grid)
  assert 'This config' in text and 'Proposed' in text and '  ldm-jax --a' in text
  assert 'Proposed' not in doctor_text.grid_lines({**grid, 'same': True})
  assert 'no public scans' in doctor_text.grid_lines(None)


def test_the_value_of_a_patient_is_left_out():
  told = doctor_text.without_value('P1: age = 143 lies outside [20, 90]')
  assert told == 'P1: age lies outside [20, 90]'
  assert doctor_text.without_value('no value') == 'no value'


def test_the_rest_of_many_groups_is_counted():
  assert doctor_text.most({'F': 3, '': 2, 'x': 1}, 2) == 'F (3), – (2), and 1 more'
  assert doctor_text.most({}) == '–'


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.2, '1 s'), (60, '60 s'), (600, '10 min'), (7200, '2 h'), (864000, '10 days')],
)
def test_durations_have_the_unit_that_fits(seconds, text):
  assert doctor_text.duration(seconds) == text
  assert doctor_text.duration(None) == doctor_text.duration(math.inf) == '–'


def test_memory_is_told_in_mib_up_to_a_thousand():
  assert doctor_text.memory(10) == '1 MiB'
  assert doctor_text.memory(3 * 2**30) == '3.0 GiB'
