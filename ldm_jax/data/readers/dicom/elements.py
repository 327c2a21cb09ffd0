"""Elements of a DICOM header -> numbers and text, a bounded set of them.

Only the elements named in `TAGS` are ever parsed, so names, ids and dates of a patient
do not enter the program. Text is taken as raw bytes: pydicom's own conversion warns
about values against the standard by quoting them.
"""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR

# pydicom's warnings about values against the standard quote them, identifiers too.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

TEXT = ('SeriesInstanceUID', 'SeriesDescription', 'ImageType', 'AcquisitionTime')
NUMBERS = (
  *('SeriesNumber', 'InstanceNumber', 'EchoTime', 'CardiacNumberOfImages'),
  *('NumberOfFrames', 'Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated'),
  *('BitsStored', 'PixelRepresentation', 'TriggerTime', 'PixelSpacing'),
  *('ImagePositionPatient', 'ImageOrientationPatient', 'SliceThickness'),
  *('SpacingBetweenSlices', 'RescaleSlope', 'RescaleIntercept'),
)
GROUPS = ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')
OTHERS = ('PhotometricInterpretation', 'ModalityLUTSequence')
# Where an enhanced file keeps, per frame, what a plain file keeps at its top.
PER_FRAME = {
  'ImagePositionPatient': 'PlanePositionSequence',
  'ImageOrientationPatient': 'PlaneOrientationSequence',
  'PixelSpacing': 'PixelMeasuresSequence',
  'SliceThickness': 'PixelMeasuresSequence',
  'SpacingBetweenSlices': 'PixelMeasuresSequence',
  'RescaleSlope': 'PixelValueTransformationSequence',
  'RescaleIntercept': 'PixelValueTransformationSequence',
  'NominalCardiacTriggerDelayTime': 'CardiacSynchronizationSequence',
  'TemporalPositionIndex': 'FrameContentSequence',
  'EffectiveEchoTime': 'MREchoSequence',
}
INNER = ('NominalCardiacTriggerDelayTime', 'TemporalPositionIndex', 'EffectiveEchoTime')
# Looked up once: pydicom would translate a keyword at each use.
TAG = {
  keyword: pydicom.tag.Tag(keyword)
  for keyword in (*TEXT, *NUMBERS, *GROUPS, *OTHERS, *INNER, *PER_FRAME.values())
}
TAGS = [TAG[keyword] for keyword in (*TEXT, *NUMBERS, *GROUPS, *OTHERS)]
IS_TEXT = {keyword for keyword in NUMBERS if dictionary_VR(keyword) in ('DS', 'IS')}


def number(item: pydicom.Dataset, keyword: str) -> float | None:
  """The element's one number, or None where it is absent, empty or no number."""
  found = numbers(item, keyword)
  return found[0] if found else None


def numbers(item: pydicom.Dataset, keyword: str) -> list[float]:
  """The element's numbers; [] where it is absent, empty or holds none."""
  tag = TAG[keyword]
  element = item.get_item(tag) if tag in item else None
  if element is None or element.value in (None, b'', ''):
    return []
  value = element.value
  if isinstance(value, bytes) and keyword not in IS_TEXT:
    value = item[tag].value
  if isinstance(value, bytes):
    value = value.decode('latin-1').strip(' \0').split('\\')
  many = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
  try:
    found = [float(v) for v in many]
  except (TypeError, ValueError):
    return []
  return found if np.isfinite(found).all() else []


def text(item: pydicom.Dataset, keyword: str) -> str:
  """The element's text, '' where it is absent."""
  tag = TAG[keyword]
  element = item.get_item(tag) if tag in item else None
  value = '' if element is None or element.value is None else element.value
  found = value.decode('latin-1') if isinstance(value, bytes) else str(value)
  return found.strip(' \0')


def milliseconds(clock: str) -> float | None:
  """'HHMMSS.ffffff' -> ms since midnight."""
  digits = clock.replace(':', '')
  if len(digits) < 6 or not digits[:6].isdigit():
    return None
  try:
    seconds = float(digits[4:])
  except ValueError:
    return None
  return 1e3 * (3600 * int(digits[:2]) + 60 * int(digits[2:4]) + seconds)
