"""Laws of the phantoms as layouts."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA, Attribute, Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.store import store

OPTIONS = {
  'phantom_brain': {'shape': (16, 20, 16), 'spacing_mm': (9.5, 9.5, 9.5)},
  'phantom_cardiac': {'shape': (12, 32, 32), 'spacing_mm': (10.0, 5.5, 5.5)},
  'phantom_chest': {'shape': (1, 32, 32)},
}
each_layout = pytest.mark.parametrize('name', OPTIONS)


def read(name, **options):
  return layouts.LAYOUTS[name].read('', name='p', **OPTIONS[name], **options)


@each_layout
def test_prepare_stores_volumes_labels_and_attributes(name, tmp_path):
  cohort = read(name, num_patients=2)
  shape = OPTIONS[name]['shape']
  store.prepare(tmp_path, cohort, preprocess.Spec(shape))
  split = store.open_split(tmp_path, 'p')
  assert split.volumes(np.array([0, 1])).shape == (2, *shape, 1)
  assert split.labels([0]).max() > 1
  assert np.isfinite(split.attributes).all()


@each_layout
def test_the_population_gives_requests_the_schema_can_encode(name):
  layout = layouts.LAYOUTS[name]
  requests = layout.population(5, 0, seed=5, num_patients=2, **OPTIONS[name])
  for request in requests:
    code = read(name, num_patients=1).schema.encode(request)
    assert np.isfinite(code).all()
  assert layout.population(5, 0) == requests
  assert layout.population(5, 1) != requests


@each_layout
def test_a_schema_selects_attributes(name):
  age = 'AGE' if name == 'phantom_cardiac' else 'age'
  schema = Schema((Attribute(age, low=0, high=100, unit='years'),))
  cohort = read(name, num_patients=1, schema=schema)
  assert cohort.schema.encode(cohort.records[0].attributes).shape == (1,)
  with pytest.raises(ValueError, match='height'):
    read(name, num_patients=1, schema=Schema((Attribute('height', low=1, high=2),)))


def test_a_schema_may_name_the_effects_of_age_on_the_brain():
  schema = Schema((Attribute('ventricles_ml', low=0, high=100, unit='ml'),))
  record = read('phantom_brain', num_patients=1, schema=schema).records[0]
  assert abs(schema.encode(record.attributes)[0]) < 1


@each_layout
def test_an_unknown_option_is_an_error_that_lists_the_known(name):
  with pytest.raises(ValueError, match=f'{name}.*options are name, num_patients'):
    read(name, num_patient=3)


def test_a_heart_is_two_records_with_the_published_attributes():
  cohort = read('phantom_cardiac', num_patients=2)
  assert len(cohort) == 2 and len(cohort.records) == 4
  assert cohort.schema == CARDIAC_SCHEMA
