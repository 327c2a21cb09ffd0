"""Laws of the sections `run`, `mesh` and `doctor`."""

import pytest


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'run.workers': '-1'}, 'run.workers'),
    ({'doctor.max_records': '-1'}, 'doctor.max_records'),
    ({'doctor.max_voxels': '-1'}, 'doctor.max_voxels'),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)
