"""Laws of what layouts state about their data sets."""

import dataclasses

import pytest

from ldm_jax.data import layouts
from ldm_jax.data.layouts.shared.about import About

OWN_FILES = {'folder', 'phantom_brain', 'phantom_cardiac', 'phantom_chest'}


@pytest.mark.parametrize('name', [n for n in layouts.LAYOUTS if n != 'tfds'])
def test_every_layout_says_whose_data_they_are(name):
  about = layouts.LAYOUTS[name].ABOUT
  assert isinstance(about, About)
  assert len(about.title) > 10 and len(about.licence) > 2
  if name not in OWN_FILES:
    assert about.homepage.startswith('http') and about.instructions
    assert about.citation.startswith('@') and 'title={' in about.citation


def test_what_is_stated_cannot_be_changed_by_who_reads_it():
  with pytest.raises(dataclasses.FrozenInstanceError):
    layouts.LAYOUTS['scd'].ABOUT.licence = 'none'
