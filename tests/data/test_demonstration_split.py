"""Laws of demonstration splits: found for whatever sections read one folder."""

import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data import demonstration_split


def data_of(public, private, root='/scans', measuring=''):
  data = defaults().data
  data.split.public, data.split.private = 0.4, 0.5
  for name, part in (
    ('public', public),
    ('private', private),
    ('measuring', measuring),
  ):
    if part is not None:
      data[name].layout, data[name].root, data[name].part = 'folder', '/scans', part
  data.public.root = root
  return data


@pytest.mark.parametrize('root', ['/scans', '/scans/', '/x/../scans'])
def test_one_folder_split_at_random_is_a_demonstration(root):
  data = data_of('public', 'private', root)
  assert demonstration_split.share(data) == pytest.approx(0.4)
  said = demonstration_split.warning(data)
  assert said == demonstration_split.sentence(0.4) and '40 %' in said


def test_a_share_of_a_published_part_counts_and_the_part_itself_does_not():
  drawn = data_of('published:train/public', 'published:train/private')
  assert demonstration_split.share(drawn) == pytest.approx(0.4)
  assert demonstration_split.share(data_of('published:train', 'published:test')) is None


def test_another_folder_a_named_cohort_a_phantom_or_no_private_one_is_none():
  data = data_of('public', 'private', '/elsewhere')
  assert demonstration_split.share(data) is None
  assert demonstration_split.warning(data) == ''
  assert demonstration_split.share(data_of('', '')) is None
  assert demonstration_split.share(data_of('public', None)) is None
  phantom = data_of('public', 'private')
  phantom.private.layout = phantom.public.layout = 'phantom_cardiac'
  assert demonstration_split.share(phantom) is None
