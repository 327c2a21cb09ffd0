"""Laws of unusable scans: they stay in the cohort and say why at every use."""

import pytest

from ldm_jax.data.cohorts.unreadable import record


def test_an_unusable_scan_keeps_its_patient_and_gives_its_reason():
  found = record('P1', '/scans/P1', ValueError('P1 has no ED; add it.'), part='train')
  assert (found.id, found.patient, found.part) == ('P1', 'P1', 'train')
  assert found.source.files == ('/scans/P1',)
  for use in (found.source.read, found.source.fingerprint):
    with pytest.raises(ValueError, match=r'^P1 has no ED; add it\.$'):
      use()
