"""Laws of what arms share: links to the store, networks, never a ledger."""

import os

from ldm_jax.commands import arm_folders


def test_an_arm_gets_networks_and_store_but_no_ledger_and_no_adaptation(tmp_path):
  base, arm = tmp_path / 'base', tmp_path / 'arm'
  for name in ('store/volumes/a.npz', 'store/ledger-private.jsonl'):
    (base / name).parent.mkdir(parents=True, exist_ok=True)
    (base / name).write_text(name)
  for stage in (*arm_folders.SHARED_STAGES, 'adapt'):
    (base / 'checkpoints' / stage).mkdir(parents=True)
    (base / 'checkpoints' / stage / 'done.json').write_text(stage)
  (arm / 'store.part').mkdir(parents=True)  # left by a kill
  (base / 'checkpoints' / 'measurement').mkdir()  # interrupted, so not given
  arm_folders.share(base, arm)
  files = {str(p.relative_to(arm)) for p in arm.rglob('*') if p.is_file()}
  assert files == {
    'store/volumes/a.npz',
    *(f'checkpoints/{stage}/done.json' for stage in arm_folders.SHARED_STAGES),
  }
  assert os.stat(arm / 'store/volumes/a.npz').st_nlink == 2
  assert os.stat(arm / 'checkpoints/prepare/done.json').st_nlink == 1


def test_a_ledger_that_holds_something_else_is_never_replaced(tmp_path):
  first, arm = tmp_path / 'first', tmp_path / 'arm'
  (first / arm_folders.ADAPTED).mkdir(parents=True)
  (first / arm_folders.ADAPTED / 'done.json').write_text('{}')
  for folder, spent in ((first, 'a'), (arm, 'b')):
    (folder / 'store').mkdir(parents=True)
    (folder / 'store' / arm_folders.LEDGER).write_text(spent)
  arm_folders.give_adapted(first, arm)
  assert (arm / 'store' / arm_folders.LEDGER).read_text() == 'b'
  assert not (arm / arm_folders.ADAPTED).exists()
  # What a kill has left in between is given whole.
  (arm / 'store' / arm_folders.LEDGER).write_text('a')
  arm_folders.give_adapted(first, arm)
  assert (arm / arm_folders.ADAPTED / 'done.json').is_file()
