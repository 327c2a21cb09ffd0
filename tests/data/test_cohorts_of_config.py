"""Laws of the sections of a config: published parts, their shares, faulty patients."""

import pytest

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
