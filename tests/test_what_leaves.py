"""A private cohort with markers: no file that may leave, and no log, holds one.

tests/test_end_to_end.py searches the whole pipeline's folder; here the cohort has what
prepare and doctor have most to say about: faults, values out of range, odd pictures.
"""

import base64
import contextlib
import gzip
import io
import pathlib
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ldm_jax import main
from ldm_jax.data.inspection import thumbnail
from ldm_jax.data.readers import volume

ROOT = pathlib.Path(__file__).resolve().parent.parent
ID, VALUE = 'CANARY7391', 73.91
STAYS = ('store', 'checkpoints')


def write_cohort(root, first, marker=''):
  root.mkdir()
  lines = ['participant_id\tage']
  for seed in range(first, first + 8):
    name = f'{marker or "P"}{seed}'
    voxels = np.random.default_rng(seed).integers(1, 200, (8, 8, 8)).astype(np.float32)
    if marker:
      voxels[2:6, 2:6, 2:6] = 739.1  # a block that no public scan has
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / f'{name}.nii.gz')
    lines.append(f'{name}\t{VALUE if marker else 30 + seed}')
  (root / 'participants.tsv').write_text('\n'.join(lines) + '\n')
  return root


@pytest.fixture(scope='module')
def marked(tmp_path_factory):
  """(work folder after doctor and prepare, private folder, all that was printed)."""
  place = tmp_path_factory.mktemp('marked')
  public, private = write_cohort(place / 'a', 0), write_cohort(place / 'b', 10, ID)
  (private / f'{ID}12.nii.gz').write_bytes(b'no image')
  config = f'{ROOT}/configs/folder.py:tiny,root={public},shape=8x8x8,spacing=1x1x1'
  command = [
    f'--config={config},split=demo,attributes=age:20:60',
    f'--workdir={place / "work"}',
    '--config.data.public.part=',
    '--config.data.private.part=',
    '--config.data.test.layout=',
    f'--config.data.private.root={private}',
    '--config.data.max_bad_fraction=0.5',
    '--config.adapt.privacy.batch_size=4',
    '--config.diffusion.batch_size=8',
  ]
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    for stage in ('doctor', 'prepare'):
      assert main.main([*command, f'--stages={stage}']) == 0
    # Refused: the message is about private patients.
    refused = [*command, '--stages=prepare', '--config.data.max_bad_fraction=0']
    (private / f'{ID}12.nii.gz').write_bytes(b'no image either')
    assert main.main(refused) == 2
  return place / 'work', private, printed.getvalue()


def pieces(path):
  """Bytes of a file, and what is packed in it: gzip, arrays, pictures of a page."""
  content = path.read_bytes()
  yield content
  if path.suffix == '.gz':
    yield gzip.decompress(content)
  elif path.suffix == '.npz':
    with np.load(path) as arrays:
      yield from (arrays[name].tobytes() for name in arrays.files)
  elif path.suffix == '.html':
    for text in re.findall(rb'data:image/png;base64,([\w+/=]+)', content):
      yield from channels(Image.open(io.BytesIO(base64.b64decode(text))))
  elif path.suffix == '.png':
    yield from channels(Image.open(path))


def channels(picture):
  """Bytes of each channel: grey may stand beside opacity or colours."""
  for channel in picture.split():
    yield np.asarray(channel).tobytes()


def marks(private):
  """How the markers may stand in a file."""
  found = {ID.encode(), b'73.91', b'739.1', np.float64(VALUE).tobytes()}
  found |= {np.float32(VALUE).tobytes(), np.float32(739.1).tobytes() * 2}
  rows = thumbnail.draw(volume.read(private / f'{ID}10.nii.gz'))
  found.add(rows[len(rows) // 3].tobytes())
  return found


def holding(paths, words):
  return {
    path for path in paths for piece in pieces(path) if any(w in piece for w in words)
  }


def test_no_file_that_may_leave_holds_a_marker(marked):
  work, private, _ = marked
  files = [path for path in work.rglob('*') if path.is_file()]
  leaving = [path for path in files if path.relative_to(work).parts[0] not in STAYS]
  names = {str(path.relative_to(work)) for path in leaving}
  assert {
    'log.jsonl',
    'privacy.json',
    'report/doctor.html',
    'doctor/plan.json',
  } <= names
  words = marks(private)
  assert not holding(leaving, words)
  # The search finds what stays: ids, values and pictures.
  inside = work / 'store' / 'doctor'
  for word in (ID.encode(), b'73.91'):
    assert inside / 'private.json' in holding(inside.iterdir(), {word})
  picture = {word for word in words if len(word) == 96}
  assert holding(inside.iterdir(), picture) == {inside / 'doctor.html'}


def test_nothing_that_is_printed_holds_a_marker_but_the_place_of_the_notes(marked):
  work, _, printed = marked
  assert 'prepare private: WARNING left out, ' in printed
  assert 'Attributes out of their range' in printed
  assert 'Attributes out of their range: ' not in printed
  notes = work / 'store' / 'notes-private.txt'
  assert printed.count(str(notes)) == 2
  assert ID in notes.read_text()
  for word in (ID, '73.91', '739'):
    assert word not in printed


def test_nothing_that_is_printed_counts_scans_of_private_patients(marked):
  """Exact counts would be statistics without noise; only N is public."""
  _, _, printed = marked
  for line in re.split(r'[\n\r]', printed):
    if 'private' in line and 'public' not in line:
      assert not re.search(r'\d+ scans|\d+/\d+|left out \d', line), line
  assert re.search(r'private \d patients;', printed)


def test_the_log_has_no_count_of_what_was_left_out_of_a_private_cohort(marked):
  lines = (marked[0] / 'log.jsonl').read_text()
  assert '"public": {"patients": 8, "left_out": 0}' in lines
  assert '"private": {"patients": 8}' in lines or '"private": {"patients": 7}' in lines
