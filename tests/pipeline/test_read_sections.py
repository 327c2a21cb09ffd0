"""Laws of what a stage's fingerprint reads: what is switched off changes nothing."""

import pytest

from ldm_jax.config.parsing import override
from ldm_jax.pipeline import read_sections, runner
from ldm_jax.workfolder import fingerprint
from tests import micro


def mark(name, **flags):
  config = override(micro.get_config(), flags)
  reads = read_sections.of(runner.STAGES[name].reads, name, config)
  return fingerprint(config, reads, {})


@pytest.mark.parametrize('name', ['autoencoder', 'encode', 'sample', 'export'])
def test_label_maps_change_the_marks_of_what_depends_on_them(name):
  joint = {'data.labels': 'joint'}
  assert mark(name) != mark(name, **joint)
  assert mark(name, **joint) != mark(name, **joint, **{'evaluate.labels': (0, 1)})
  assert mark(name) == mark(name, **{'evaluate.labels': (0, 1)})


def test_how_scans_are_prepared_and_the_denoiser_s_mark_do_not_name_labels():
  for name in ('prepare', 'diffusion', 'adapt'):
    assert mark(name) == mark(name, **{'data.labels': 'joint'})


@pytest.mark.parametrize(
  ('name', 'key', 'value', 'switch'),
  [
    ('autoencoder', 'autoencoder.labels.weight', 0.7, {'data.labels': 'joint'}),
    ('evaluate', 'evaluate.utility.steps', 7, {'evaluate.utility.use': True}),
    ('evaluate', 'evaluate.groups.least', 7, {'evaluate.groups.by': ('SEX',)}),
    (
      'evaluate',
      'evaluate.within_patient.same',
      (),
      {'sample.within_patient.ESED': '1|0'},
    ),
    (
      'evaluate',
      'evaluate.label_names',
      ('none', 'a', 'b', 'c'),
      {'data.labels': 'joint'},
    ),
  ],
)
def test_a_key_counts_where_its_switch_is_on_and_not_otherwise(
  name, key, value, switch
):
  assert mark(name) == mark(name, **{key: value})
  assert mark(name, **switch) != mark(name, **switch, **{key: value})


def test_maps_as_a_condition_count_where_there_are_any():
  by = {'diffusion.conditioner.by': ('embedding', 'mask')}
  values, masks = {'evaluate.labels': (0, 1)}, {'sample.masks': 'none'}
  assert mark('diffusion') == mark('diffusion', **values)
  assert mark('diffusion', **by) != mark('diffusion', **by, **values)
  for name in ('sample', 'export'):
    assert mark(name) == mark(name, **masks)
    assert mark(name, **by) != mark(name, **by, **masks)


def test_the_weights_of_pretraining_and_the_drift_count_as_before():
  weights = {'diffusion.weights': 'private_histogram'}
  delta = {'adapt.privacy.delta': 1e-7}
  assert mark('diffusion') == mark('diffusion', **delta)
  assert mark('diffusion', **weights) != mark('diffusion', **weights, **delta)


def test_volumes_of_a_patient_change_the_marks_of_what_is_drawn():
  for name in ('sample', 'export'):
    assert mark(name) != mark(name, **{'sample.within_patient.ESED': '1|0'})
  assert mark('adapt') == mark('adapt', **{'sample.within_patient.ESED': '1|0'})
