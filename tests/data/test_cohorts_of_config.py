"""Laws of the sections of a config: published parts, their shares, faulty patients."""

import re

import numpy as np
import pytest

from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.cohorts.unreadable import record as faulty
from ldm_jax.data.inspection.findings import inspect
from ldm_jax.data.layouts import LAYOUTS
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import store

COHORTS = ('public', 'private', 'test')


class Published:
  """A layout of six training and two test patients."""

  @staticmethod
  def read(root, **options):
    records = [
      Record(f'p{n}', f'p{n}', FileSource('x'), part='train' if n < 6 else 'test')
      for n in range(8)
    ]
    return Cohort('published', Schema(), tuple(records))


@pytest.fixture
def data(monkeypatch):
  monkeypatch.setitem(LAYOUTS, 'published', Published)
  data = defaults().data
  for name in COHORTS:
    data[name].layout, data[name].root = 'published', '/x'
  return data


def test_a_published_part_and_shares_of_another_make_disjoint_cohorts(data):
  data.split.public = data.split.private = 0.5
  data.split.test = 0.0
  data.public.part = 'published:train/public'
  data.private.part = 'published:train/private'
  data.test.part = 'published:test'
  found = cohorts_of_config.cohorts(data)
  assert [len(found[name]) for name in COHORTS] == [3, 3, 2]
  assert set(found['test'].patients) == {'p6', 'p7'}


def test_a_part_taken_twice_is_refused(data):
  data.public.part = data.private.part = 'published:train'
  data.test.part = 'published:test'
  with pytest.raises(ValueError, match=r"both 'public' and 'private'"):
    cohorts_of_config.cohorts(data)


@pytest.mark.parametrize(
  ('part', 'message'),
  [
    ('published:valid', r"'valid'.*expected one of test, train"),
    ('published:train/x', r"'x'.*the parts .*private"),
    ('train', "'published:train'"),
  ],
)
def test_a_part_that_is_not_there_is_an_error_that_names_those_there_are(
  data, part, message
):
  data.public.part = part
  with pytest.raises(ValueError, match=message):
    cohorts_of_config.cohorts(data)


def test_a_set_without_parts_says_so():
  cohort = Cohort('c', Schema(), (Record('a', 'a', FileSource('x')),))
  with pytest.raises(ValueError, match='it has no parts'):
    cohort.published('train')


def test_a_faulty_patient_is_counted_listed_and_never_silent(tmp_path, save_nifti):
  whole = str(save_nifti(tmp_path / 'a.nii'))
  broken = faulty('b', tmp_path / 'b', ValueError('b has no ED; add it to Info.cfg.'))
  cohort = Cohort('c', Schema(), (Record('a', 'a', FileSource(whole)), broken))
  assert inspect(cohort).findings['unreadable'] == [
    'b: b has no ED; add it to Info.cfg.'
  ]
  with pytest.raises(ValueError, match=r'1 of the 2 scans.*b has no ED'):
    store.prepare(tmp_path / 's', cohort, Spec((4, 4, 4)))
  index = store.prepare(tmp_path / 's', cohort, Spec((4, 4, 4)), max_bad_fraction=0.5)
  assert [problem['id'] for problem in index['problems']] == ['b']
  assert index['problems'][0]['path'] == str(tmp_path / 'b')


def test_the_listing_changes_when_a_fault_is_repaired(tmp_path):
  found = [
    Cohort('c', Schema(), (faulty('b', tmp_path, ValueError(reason)),))
    for reason in ('one', 'other')
  ]
  digests = {cohorts_of_config.listing_digest({'c': cohort}) for cohort in found}
  assert len(digests) == 2


class People:
  """A layout whose root names its patients, with one attribute."""

  @staticmethod
  def read(root, schema=None):
    schema = SCHEMA if schema is None else schema
    records = [Record(p, p, FileSource('x'), {'age': 50}) for p in root.split()]
    return Cohort('people', schema, tuple(records))


SCHEMA = Schema.from_config([{'name': 'age', 'low': 0, 'high': 99}])


@pytest.fixture
def several(monkeypatch):
  monkeypatch.setitem(LAYOUTS, 'people', People)
  data = defaults().data
  for name, root in (('public', 'a b'), ('private', 'x y')):
    data[name].layout, data[name].root, data[name].part = 'people', root, ''
  return data


def test_public_cohorts_together_hold_all_their_patients_under_one_schema(several):
  hearts = {'num_patients': 2, 'name': 'h', 'seed': 1}
  several.public.also = (
    {'layout': 'people', 'root': 'b c'},
    {'layout': 'phantom_cardiac', 'options': hearts},
  )
  public = cohorts_of_config.cohorts(several)['public']
  first, second = list(public.patients)[:2], list(public.patients)[2:4]
  assert (first, second) == (['a', 'b'], ['1-b', 'c'])
  assert len(public) == 6
  assert public.schema == SCHEMA
  assert {r.attributes['age'] for r in public.records[:4]} == {50}


def test_a_private_patient_in_a_further_public_cohort_is_refused(several):
  several.public.also = ({'layout': 'people', 'root': 'c x'},)
  with pytest.raises(ValueError, match=r"both 'private' and 'public.also\[0\]'"):
    cohorts_of_config.cohorts(several)


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    ('people', 'expected a mapping'),
    ({'layout': 'people', 'rot': 'c'}, 'the keys rot'),
    ({'layout': 'peple'}, r"public.also\[0\].layout is 'peple'"),
  ],
)
def test_a_further_public_cohort_that_cannot_be_read_is_named(several, entry, message):
  several.public.also = (entry,)
  with pytest.raises(ValueError, match=message):
    cohorts_of_config.cohorts(several)


def tree(root, save_nifti, rows, name='{}.nii', voxels=None):
  for row in rows[1:]:
    save_nifti(root / name.format(row.split('\t')[0]), voxels)
  (root / 'participants.tsv').write_text('\n'.join(rows) + '\n')


def of_folder(root, layout='folder', overrides=None):
  config = defaults()
  for name in COHORTS:
    config.data[name].layout, config.data[name].root = layout, str(root)
  config.data.schema = ({'name': 'age', 'low': 0, 'high': 99},)
  return parsing.override(config, overrides or {}).data


def advised(text):
  """The flags that a message names."""
  return {
    key: value for key, value in re.findall(r'--config\.([\w.]+)=([^\s,)]*)', text)
  }


def failure(data):
  """The message that a user gets to read about these cohorts."""
  try:
    for name, cohort in cohorts_of_config.cohorts(data).items():
      for record in cohort.records:
        try:
          record.source.read()
        except ValueError as error:
          return cohorts_of_config.explained(str(error), name, data)
  except ValueError as error:
    return ' '.join([str(error), *sum(getattr(error, 'details', {}).values(), ())])
  return ''


ROWS = [f'p{n}\t{30 + n}' for n in range(12)]


@pytest.mark.parametrize(
  'case', ['visit', 'frame', 'suffix', 'table', 'subject', 'label']
)
def test_the_flags_that_a_message_advises_work(tmp_path, save_nifti, case):
  layout, rows, name, values = 'folder', ['id\tage', *ROWS], '{}.nii', {}
  overrides = {}
  if case == 'visit':
    rows = ['id\tage\tsession']
    rows += [f'{row}\t{n}' for row in ROWS for n in (1, 2)]
    values = {'visit': 'session'}
  voxels = np.arange(240.0, dtype=np.float32).reshape(6, 5, 4, 2)
  voxels = voxels if case == 'frame' else None
  if case == 'suffix':
    layout, name = 'bids', 'sub-{0}/anat/sub-{0}_FLAIR.nii.gz'
    rows[0], values = 'participant_id\tage', {'suffix': 'FLAIR'}
  tree(tmp_path, save_nifti, rows, name, voxels)
  if case == 'table':
    (tmp_path / 'participants.tsv').rename(tmp_path / 'people.tsv')
    (tmp_path / 'other.tsv').write_text('x\ty\n1\t2\n')
    values = {'table': 'people.tsv'}
  if case == 'subject':
    text = (tmp_path / 'participants.tsv').read_text().replace('id\t', 'who\t', 1)
    (tmp_path / 'participants.tsv').write_text(text)
    values = {'subject': 'who'}
    overrides = {f'data.{n}.options.subject': 'id' for n in COHORTS}
  if case == 'label':
    values = {'label': '{subject}_seg.nii'}
    overrides = {f'data.{n}.options.label': 'mask' for n in COHORTS}
  message = failure(of_folder(tmp_path, layout, overrides))
  flags = {k: v for k, v in advised(message).items() if k.endswith(f'options.{case}')}
  assert set(flags) == {f'data.{name}.options.{case}' for name in COHORTS}
  flags = {key: values.get(case, value) for key, value in flags.items()}
  told = failure(of_folder(tmp_path, layout, overrides | flags))
  assert told == ''


def test_an_option_of_another_layout_is_not_advised_and_a_wrong_one_is_named(
  tmp_path, save_nifti
):
  name = 'IXI{:03d}-HH-1-T1.nii'
  for number in range(12):
    save_nifti(tmp_path / name.format(number), np.arange(48.0).reshape(4, 3, 2, 2))
  rows = ['IXI_ID,AGE', *(f'{number},50' for number in range(12))]
  (tmp_path / 'IXI.csv').write_text('\n'.join(rows))
  told = failure(of_folder(tmp_path, 'ixi'))
  assert 'holds 2 frames' in told and not advised(told) and 'layout folder' in told
  wrong = of_folder(tmp_path, 'ixi', {'data.public.options.modalty': 'T1'})
  told = failure(wrong)
  assert 'Did you mean modality?' in told
  wrong = of_folder(tmp_path, 'bids', {'data.public.options.frame': 'first'})
  assert 'options.frame' in failure(wrong) and 'whole number' in failure(wrong)


def test_a_config_file_sees_the_options_of_the_flags(tmp_path, save_nifti):
  rows = ['id\tage\tsession', *(f'{row}\t{n}' for row in ROWS for n in (1, 2))]
  tree(tmp_path, save_nifti, rows)
  spec = f'configs/folder.py:tiny,root={tmp_path},attributes=age:20:90,split=demo'
  with pytest.raises(ValueError, match=r'options\.visit') as caught:
    parsing.load(spec)
  flags = dict.fromkeys(advised(str(caught.value)), 'session')
  assert parsing.override(parsing.load(spec, flags), flags)


def test_a_note_is_told_once_and_under_the_cohort_of_its_patient(tmp_path, save_nifti):
  tree(
    tmp_path, save_nifti, ['participant_id\tage', *ROWS], 'sub-{0}/anat/sub-{0}_T1w.nii'
  )
  save_nifti(tmp_path / 'sub-new/anat/sub-new_T1w.nii')
  (tmp_path / 'participants.tsv').write_text(
    '\n'.join(['participant_id\tage', *ROWS, 'gone\t50'])
  )
  found = cohorts_of_config.cohorts(of_folder(tmp_path, 'bids'))
  notes = [(name, note) for name, cohort in found.items() for note in cohort.notes]
  assert len(notes) == len({note for _, note in notes}) == 2
  (owner,) = [name for name, note in notes if note.startswith('sub-new:')]
  assert 'sub-new' in found[owner].patients
  # It may name patients who are not public.
  assert [name for name, note in notes if 'gone' in note] == ['private']


def test_patients_without_any_attribute_are_found_by_their_data_set(
  tmp_path, save_nifti
):
  rows = ['participant_id\tage', *(row.replace('p', 'x') for row in ROWS)]
  tree(
    tmp_path, save_nifti, ['participant_id\tage', *ROWS], 'sub-{0}/anat/sub-{0}_T1w.nii'
  )
  data = of_folder(tmp_path, 'bids')
  found = cohorts_of_config.cohorts(data)
  assert cohorts_of_config.without_any_value(data, found) == []
  (tmp_path / 'participants.tsv').write_text('\n'.join(rows))
  found = cohorts_of_config.cohorts(data)
  assert cohorts_of_config.without_any_value(data, found) == [list(COHORTS)]


def test_all_cohorts_that_cannot_be_read_are_told_at_once(tmp_path):
  data = of_folder(tmp_path / 'none')
  data.private.root = str(tmp_path / 'neither')
  with pytest.raises(ValueError, match=r'none.*neither'):
    cohorts_of_config.cohorts(data)
