"""Laws of roles: what is internal follows from what was read, and notes stay inside."""

from ldm_jax.data.cohorts import roles


def test_only_what_read_nothing_but_public_cohorts_is_not_internal():
  assert not roles.is_internal(())
  assert not roles.is_internal(roles.PUBLIC)
  for name in (*roles.CONFIDENTIAL, 'folder'):
    assert roles.is_internal(('public', name))


def test_a_mark_lists_each_cohort_once_and_claims_nothing_without_any():
  assert roles.mark('private', 'public', 'private') == {
    'reads': ['private', 'public'],
    'internal': True,
  }
  assert roles.mark('public') == {'reads': ['public'], 'internal': False}
  assert roles.mark() == {'reads': []}


def test_notes_lie_in_the_store_and_go_when_there_is_nothing_to_tell(tmp_path):
  path = roles.write_notes(tmp_path / 'store', 'private', ['P1: cut off', 'P2: empty'])
  assert path == tmp_path / 'store' / 'notes-private.txt'
  assert path.read_text() == 'P1: cut off\nP2: empty\n'
  roles.write_notes(tmp_path / 'store', 'private', [])
  assert not path.exists()


def test_an_error_shows_its_message_and_keeps_its_details():
  error = roles.ConfidentialError('one scan cannot be used', {'private': ['P1: cut']})
  assert str(error) == 'one scan cannot be used'
  assert error.details == {'private': ('P1: cut',)}
