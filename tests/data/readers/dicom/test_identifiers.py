"""No identifier of a DICOM header reaches anything that is produced."""

import gzip
import json
import logging
import shutil
import traceback
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.inspection import findings as inspection
from ldm_jax.data.layouts.shared.cine import PhaseSource
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers import volume
from ldm_jax.data.store import store

MARKER = 'MARKER'
PLANTED = ('PN', 'LO', 'SH', 'DA', 'DT', 'UI', 'LT', 'ST', 'UT', 'AE')
# Without these two there is no file to read.
KEPT = {'SOPClassUID'}
PIXELS = b'\xe0\x7f\x10\x00'
UID_NAME = '1.2.826.0.1.3680043.8.498.4711'


def planted():
  """A marker in every element of a text or identifier type that DICOM knows."""
  data = pydicom.Dataset()
  for tag, (vr, count, _, retired, keyword) in DicomDictionary.items():
    usable = tag >> 16 not in (0, 2, 4) and not retired and keyword not in KEPT
    if vr in PLANTED and count == '1' and usable:
      data.add(pydicom.DataElement(tag, vr, f'{MARKER}{vr}'))
  return data


@pytest.fixture
def folders(tmp_path, save_series):
  """A good cine and one for each way to fail, all full of markers."""
  voxels = np.random.default_rng(0).integers(0, 99, (6, 5, 2, 2)).astype(np.int16)
  names = ('good', 'gap', 'truncated', 'mixed', 'pixels', 'damaged')
  mode = pydicom.config.settings.writing_validation_mode
  pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
  found, markers = {}, planted()
  assert len(markers) > 500
  marked = save_series(tmp_path / 'marked', voxels, np.diag([1.0, 1, 8, 1]))
  for number, path in enumerate(sorted(marked.iterdir())):
    data = pydicom.dcmread(path)
    data.update(markers)
    data.file_meta.MediaStorageSOPInstanceUID = f'{MARKER}UI'
    pydicom.dcmwrite(path, data)
    path.rename(marked / f'{UID_NAME}.{number}.dcm')
  for name in names:
    found[name] = folder = tmp_path / name
    shutil.copytree(marked, folder)
    files = sorted(folder.iterdir())
    content = files[0].read_bytes()
    if name == 'gap':
      files[0].unlink()
    elif name == 'truncated':
      files[0].write_bytes(content[: content.rindex(PIXELS) + 40])
    elif name == 'damaged':
      files[0].write_bytes(content[:2000] + b'\xff' * 40 + content[2040:])
    elif name in ('mixed', 'pixels'):
      data = pydicom.dcmread(files[0])
      if name == 'mixed':
        data.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
      else:
        del data.PixelData
      pydicom.dcmwrite(files[0], data)
  pydicom.config.settings.writing_validation_mode = mode
  return found


def test_no_identifier_reaches_an_output(tmp_path, folders, caplog, capfd):
  caplog.set_level(logging.DEBUG)
  said = []
  with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter('always')
    records = [
      Record(name, name, FileSource(str(folder), frame=0))
      for name, folder in folders.items()
    ]
    good = folders['good']
    records += [
      Record('ES', 'p', PhaseSource(str(good), 'ES')),
      Record('chosen', 'q', FileSource(f'{good}#{MARKER}LO', frame=1)),
      Record('absent', 'r', FileSource(f'{good}#none', frame=1)),
    ]
    cohort = Cohort('public', Schema(), tuple(records))
    index = store.prepare(
      tmp_path / 'store', cohort, Spec((2, 4, 4)), max_bad_fraction=0.9, workers=1
    )
    findings = inspection.inspect(cohort).findings
    said.append(json.dumps(findings, default=str))
    for record in records:
      try:
        scan, _ = record.source.read()
        said.append(repr(scan))
        out = tmp_path / 'store' / f'{record.id}.nii.gz'
        volume.write(out, scan.array, scan.affine, scan.source)
      except ValueError as error:
        said += traceback.format_exception(error)
  bad = {problem['id'] for problem in index['problems']}
  assert bad == {'gap', 'truncated', 'mixed', 'pixels', 'damaged', 'absent'}
  said += [str(warning.message) for warning in warned]
  said += [caplog.text, *capfd.readouterr()]
  # The choice itself, which the user wrote, is the only marker that may come back.
  said = '\n'.join(said).replace(f'#{MARKER}LO', '')
  assert MARKER not in said and UID_NAME not in said
  for path in (tmp_path / 'store').rglob('*'):
    content = path.read_bytes() if path.is_file() else b''
    content = gzip.decompress(content) if path.suffix == '.gz' else content
    content = content.replace(f'#{MARKER}LO'.encode(), b'')
    assert MARKER.encode() not in content and UID_NAME.encode() not in content, path
