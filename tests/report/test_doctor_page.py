"""Laws of the doctor's page: complete, escaped, private parts marked."""

import re

import numpy as np
import pytest

from ldm_jax.report import doctor_page, doctor_text

BADGE = 'class="badge"'


@pytest.fixture
def content(looks, plan, grid):
  planes = [np.zeros((4, 4), np.uint8)] * 3
  panels = [('file', (4, 4, 4), (1.0, 1.0, 1.0), planes)]
  return {
    'title': 'Examination',
    'banner': '',
    'looks': looks,
    'internal': ('private', 'test'),
    'headlines': [],
    'shared': [],
    'plan': plan,
    'grid': grid,
    'examples': [{'id': 'P<1>', 'panels': panels}],
  }


def sections(html):
  return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', html, re.S))


def test_a_run_whose_networks_cannot_be_built_has_a_page(content):
  plan = {'stages': [], 'noise': [], 'faults': ['no such network']}
  assert 'no such network' in doctor_page.html({**content, 'plan': plan})


def test_every_cohort_has_a_section_and_private_ones_are_marked(content, read):
  html = doctor_page.html(content)
  assert read(html).open == []
  found = sections(html)
  assert list(found) == ['summary', 'grid', 'public', 'private', 'noise', 'cost']
  assert BADGE in found['private'] and BADGE not in found['public']
  assert found['cost'].count(BADGE) == 1  # prepare has seen private scans
  public = {name: look for name, look in content['looks'].items() if name == 'public'}
  assert (
    BADGE not in sections(doctor_page.html({**content, 'looks': public}))['summary']
  )


def test_names_of_patients_files_and_attributes_are_escaped(content, read):
  content['looks']['private'].findings['unreadable'] = ['a"><script>.nii']
  content['shared'] = ['<script>alert(1)</script>']
  html = doctor_page.html(content)
  assert read(html).tags.count('script') == 1
  assert html.count('&lt;script&gt;') == 2 and 'P&lt;1&gt;' in html


def test_a_headline_replaces_nothing_odd_was_found(content):
  assert 'Nothing odd was found.' in sections(doctor_page.html(content))['public']
  content['headlines'] = [{'text': 'zeros', 'cohorts': ['public'], 'internal': False}]
  found = sections(doctor_page.html(content))
  assert 'Nothing odd' not in found['public']
  assert '1 finding of this cohort in the' in found['public']
  assert '<b>public</b>  Zeros' in found['summary']


def test_the_value_of_a_patient_stays_off_the_page(content):
  message = 'P1: age = 143 lies outside [20, 90]'
  content['looks']['private'].findings['out_of_range'] = [message]
  found = sections(doctor_page.html(content))
  assert 'P1: age lies outside [20, 90]' in found['private']
  assert '143' not in found['private']
  assert '1 finding<' in found['summary']


def test_many_findings_are_folded_away_and_the_last_ones_left_out(content):
  content['shared'] = [f'patient {i}.' for i in range(600)]
  summary = sections(doctor_page.html(content))['summary']
  assert '<summary>588 more</summary>' in summary
  assert 'patient 499.' in summary and 'patient 500.' not in summary


def test_thumbnails_fill_at_most_four_rows_of_eight(content):
  look = content['looks']['public']
  look.thumbnails = [np.full((4, 4), 9, np.uint8)] * 40
  assert 'of 32 of 40 scans' in sections(doctor_page.html(content))['public']
  look.thumbnails = look.thumbnails[:9]
  assert 'of all scans' in sections(doctor_page.html(content))['public']


def test_mostly_noise_comes_with_advice(content):
  assert doctor_text.ADVICE in sections(doctor_page.html(content))['summary']
  for row in content['plan']['noise']:
    row['verdict'] = 'should learn'
  summary = sections(doctor_page.html(content))['summary']
  assert doctor_text.ADVICE not in summary and 'class="notice good"' in summary


def test_without_public_scans_and_private_training_the_page_says_why(content):
  content |= {'grid': None, 'examples': [], 'plan': {**content['plan'], 'noise': []}}
  found = sections(doctor_page.html(content))
  assert 'There are no public scans.' in found['grid']
  assert 'No private training is planned' in found['noise']


def test_write_puts_the_banner_above_everything(content, tmp_path):
  path = doctor_page.write(
    tmp_path / 'doctor.html', {**content, 'banner': 'Not protected'}
  )
  text = path.read_text(encoding='utf-8')
  assert text.index('role="alert">Not protected<') < text.index('<h1>')
