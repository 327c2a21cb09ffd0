"""One DICOM file -> its image planes, and the pixels of one of them (columns, rows).

Positions are in DICOM's patient coordinates, LPS mm. Enhanced (multi-frame) files give
one plane per frame. Only the elements in `TAGS` are ever parsed, so names, ids and
dates of a patient do not enter the program. No message quotes the text of an element;
the UID of a series distinguishes series and is kept as a hash.

[PS3.3] DICOM part 3: C.7.6.2 image plane, C.7.6.3 pixels, C.7.6.16 functional groups.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom import pixels as decoding
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from ldm_jax.data.readers.dicom.container import Member, damaged

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
PADDING = ('PixelPaddingValue', 'PixelPaddingRangeLimit')
OTHERS = ('PhotometricInterpretation', 'ModalityLUTSequence', *PADDING)
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
# Transfer syntax of a dataset that pydicom would unpack at once, however large.
DEFLATED = b'1.2.840.10008.1.2.1.99'
MAX_PLANE = 2**26
MAX_FRAMES = 2**16
# No codec packs a scan tighter: a file that announces more is damaged or a bomb.
MAX_PACKED_RATIO = 1100


class Unusable(ValueError):
  """A file that was parsed and refused."""


@dataclasses.dataclass(frozen=True)
class Plane:
  """One image plane: a file, or a frame of an enhanced file.

  Attributes:
    member: the file.
    frame: index in it, None for a plain file.
    position: (3,) centre of the first voxel, LPS mm.
    row: (3,) unit vector along increasing column index.
    column: (3,) unit vector along increasing row index.
    spacing: (between columns, between rows) in mm.
    shape: (columns, rows).
    thickness: distance of slices that the header states, or None.
    rescale: (slope, intercept) of the stored values.
    inverted: low values are bright (MONOCHROME1).
    stored: (lowest, highest) value that can be stored.
    series: hash of the series' UID.
    number: of the series, 0 where there is none.
    description: of the series; chooses files and is never shown.
    kind: what must also agree within a volume: image type, echo, frames per slice.
    times: clock -> number, of those that the file has (see `stack.CLOCKS`).
    padding: (lowest, highest) stored value that is no measurement, or None.
  """

  member: Member
  frame: int | None
  position: np.ndarray
  row: np.ndarray
  column: np.ndarray
  spacing: tuple[float, float]
  shape: tuple[int, int]
  thickness: float | None
  rescale: tuple[float, float]
  inverted: bool
  stored: tuple[int, int]
  series: str
  number: int
  description: str
  kind: tuple
  times: dict[str, float]
  padding: tuple[int, int] | None = None

  @property
  def normal(self) -> np.ndarray:
    """(3,) unit vector through the plane."""
    return np.cross(self.row, self.column)


def read_planes(stream: BinaryIO, member: Member) -> list[Plane]:
  """Reads a file's header; [] when the file is no image (a report, an annotation).

  Raises:
    ValueError: colours, no pixels or too few, no geometry, impossible sizes.
  """
  try:
    start = stream.read(1024)
    stream.seek(0)
    if DEFLATED in start:
      raise _refusal(member, 'is packed as a whole (deflated transfer syntax)')
    top = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=TAGS)
    has_pixels = bool(stream.read(1))
  except Unusable:
    raise
  except Exception as error:  # pydicom raises many kinds for a damaged header
    # `from None`: the cause could quote an element in a traceback.
    raise damaged(member, error) from None
  try:
    if not _number(top, 'Rows') or not _number(top, 'Columns'):
      if 'Image Storage' in top.file_meta.get('MediaStorageSOPClassUID', UID('')).name:
        raise _refusal(member, 'is an image without Rows and Columns')
      return []
    _check_pixels(member, top, has_pixels)
    count = int(_number(top, 'NumberOfFrames') or 1)
    if GROUPS[1] not in top:
      if count > 1:
        raise _refusal(member, f'holds {count} frames without their positions')
      return [_plane(member, top, [], None)]
    frames = list(top[GROUPS[1]].value)
    shared = list(top[GROUPS[0]].value) if GROUPS[0] in top else []
    if len(frames) != count:
      raise _refusal(member, f'holds {count} frames but describes {len(frames)}')
    return [_plane(member, top, [f, *shared], i) for i, f in enumerate(frames)]
  except Unusable:
    raise
  except Exception as error:
    raise damaged(member, error) from None


def read_pixels(stream: BinaryIO, plane: Plane) -> np.ndarray:
  """Decodes one plane: float32 (columns, rows), rescaled, with bright as high.

  Padding is NaN.

  Raises:
    ValueError: truncated pixels, or a compression that no installed plug-in decodes.
  """
  member = plane.member
  try:
    pixels = decoding.pixel_array(stream, index=plane.frame, raw=True)
  except (RuntimeError, NotImplementedError) as error:
    raise ValueError(
      f'{member.shown} has pixels that cannot be decoded ({type(error).__name__}); '
      'they are truncated or damaged, or no plug-in knows their compression. Copy the '
      'file again, or install pylibjpeg, pylibjpeg-openjpeg and python-gdcm.'
    ) from None
  except Exception as error:  # the codecs raise many kinds
    raise damaged(member, error) from None
  if pixels.shape != plane.shape[::-1]:
    raise _refusal(
      member, f'has pixels of shape {pixels.shape} but announces {plane.shape[::-1]}'
    )
  values = pixels.T.astype(np.float32)
  if plane.inverted:
    values = np.float32(sum(plane.stored)) - values
  slope, intercept = plane.rescale
  values = values * np.float32(slope) + np.float32(intercept)
  if plane.padding is not None:
    low, high = plane.padding
    values[(low <= pixels.T) & (high >= pixels.T)] = np.nan
  return values


def _plane(
  member: Member, top: pydicom.Dataset, groups: list, frame: int | None
) -> Plane:
  def item(keyword: str) -> pydicom.Dataset:
    for group in groups:
      inner = group[PER_FRAME[keyword]].value if PER_FRAME[keyword] in group else []
      if len(inner) and keyword in inner[0]:
        return inner[0]
    return top

  def values(keyword: str, count: int) -> np.ndarray:
    found = _numbers(item(keyword), keyword)
    if len(found) != count:
      raise _refusal(member, f'has no {keyword} of {count} numbers: no known place')
    return np.array(found)

  def value(keyword: str, default: Any) -> Any:
    found = _number(item(keyword), keyword)
    return default if found is None else found

  cosines = values('ImageOrientationPatient', 6).reshape(2, 3)
  lengths = np.linalg.norm(cosines, axis=1)
  if (abs(lengths - 1) > 1e-2).any() or abs(cosines[0] @ cosines[1]) > 1e-2:
    raise _refusal(
      member, f'has the orientation {cosines.ravel().round(4).tolist()}: no right angle'
    )
  rows_mm, columns_mm = values('PixelSpacing', 2)
  if not 1e-6 < min(rows_mm, columns_mm) <= max(rows_mm, columns_mm) <= 1e3:
    raise _refusal(member, f'has pixels of {rows_mm:g} x {columns_mm:g} mm')
  slope, intercept = value('RescaleSlope', 1.0), value('RescaleIntercept', 0.0)
  if slope == 0:
    raise _refusal(member, 'has the RescaleSlope 0')
  thickness = value('SpacingBetweenSlices', None) or value('SliceThickness', None)
  bits = int(_number(top, 'BitsStored') or _number(top, 'BitsAllocated') or 16)
  signed = bool(_number(top, 'PixelRepresentation'))
  echo = _number(top, 'EchoTime') or value('EffectiveEchoTime', None)
  return Plane(
    member=member,
    frame=frame,
    position=values('ImagePositionPatient', 3),
    row=cosines[0] / lengths[0],
    column=cosines[1] / lengths[1],
    spacing=(columns_mm, rows_mm),
    shape=(int(_number(top, 'Columns') or 0), int(_number(top, 'Rows') or 0)),
    thickness=None if thickness is None else abs(thickness),
    rescale=(slope, intercept),
    inverted=_text(top, 'PhotometricInterpretation') == 'MONOCHROME1',
    stored=(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1),
    padding=_padding(top, signed),
    series=hashlib.sha256(_text(top, 'SeriesInstanceUID').encode()).hexdigest(),
    number=int(_number(top, 'SeriesNumber') or 0),
    description=_text(top, 'SeriesDescription'),
    # The third value tells magnitude from phase. [PS3.3] C.8.3.1.1.1
    kind=(
      tuple(_text(top, 'ImageType').split('\\')[2:3]),
      echo,
      _number(top, 'CardiacNumberOfImages'),
    ),
    times=_times(top, value, frame),
  )


def _padding(top: pydicom.Dataset, signed: bool) -> tuple[int, int] | None:
  """Stored values from PixelPaddingValue to its RangeLimit, whichever is lower.

  Whether they are signed follows from the pixels. Files often write the one for the
  other (63536 for -2000), and without explicit types the elements are bare bytes.
  """
  bits = int(_number(top, 'BitsAllocated') or 16)
  found = []
  for keyword in PADDING:
    element = top.get_item(TAG[keyword]) if TAG[keyword] in top else None
    value = None if element is None else element.value
    if isinstance(value, bytes):
      little = getattr(element, 'is_little_endian', True)
      stored_bytes = value[: bits // 8]
      value = None
      if stored_bytes:
        value = int.from_bytes(stored_bytes, 'little' if little else 'big')
    if isinstance(value, int | float) and value == int(value):
      stored = int(value) % 2**bits
      found.append(stored - 2**bits if signed and stored >= 2 ** (bits - 1) else stored)
    elif keyword == PADDING[0]:
      return None  # a limit alone says nothing
  return min(found), max(found)


def _times(top: pydicom.Dataset, value: Any, frame: int | None) -> dict[str, float]:
  """Clock -> ms or rank; times of day serve as differences only."""
  found = {
    'TriggerTime': _number(top, 'TriggerTime'),
    'AcquisitionTime': _milliseconds(_text(top, 'AcquisitionTime')),
    'InstanceNumber': _number(top, 'InstanceNumber'),
  }
  if frame is not None:
    found = {
      'TriggerTime': value('NominalCardiacTriggerDelayTime', None),
      'InstanceNumber': value('TemporalPositionIndex', float(frame)),
    }
  return {clock: time for clock, time in found.items() if time is not None}


def _check_pixels(member: Member, top: pydicom.Dataset, has_pixels: bool) -> None:
  """Refuses unreadable pixels before anything of their size is allocated."""
  size, count = (int(_number(top, k) or 1) for k in ('Rows', 'NumberOfFrames'))
  size *= int(_number(top, 'Columns') or 1)
  if _number(top, 'SamplesPerPixel') not in (None, 1.0) or not _text(
    top, 'PhotometricInterpretation'
  ).startswith('MONOCHROME'):
    raise _refusal(member, 'holds colours; expected one grey value per pixel')
  if 'ModalityLUTSequence' in top:
    raise _refusal(member, 'maps its values by a table (ModalityLUTSequence)')
  if size > MAX_PLANE or not 1 <= count <= MAX_FRAMES:
    raise _refusal(member, f'announces {count} frames of {size} pixels')
  if not has_pixels:
    raise _refusal(member, 'holds no pixels')
  needed = size * count * int(_number(top, 'BitsAllocated') or 16) // 8
  packed = top.file_meta.TransferSyntaxUID.is_compressed
  if needed > member.size * (MAX_PACKED_RATIO if packed else 1):
    raise _refusal(
      member, f'announces {needed} bytes of pixels but holds {member.size}: truncated'
    )


def _refusal(member: Member, what: str) -> Unusable:
  return Unusable(
    f'{member.shown} {what}; expected whole grey-scale DICOM images with their '
    'position in the patient. Repair, convert or remove the file.'
  )


def _number(item: pydicom.Dataset, keyword: str) -> float | None:
  """The element's one number, or None where it is absent, empty or no number."""
  found = _numbers(item, keyword)
  return found[0] if found else None


def _numbers(item: pydicom.Dataset, keyword: str) -> list[float]:
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


def _text(item: pydicom.Dataset, keyword: str) -> str:
  """The element's text, '' where it is absent."""
  tag = TAG[keyword]
  element = item.get_item(tag) if tag in item else None
  value = '' if element is None or element.value is None else element.value
  found = value.decode('latin-1') if isinstance(value, bytes) else str(value)
  return found.strip(' \0')


def _milliseconds(clock: str) -> float | None:
  """'HHMMSS.ffffff' -> ms since midnight."""
  digits = clock.replace(':', '')
  if len(digits) < 6 or not digits[:6].isdigit():
    return None
  try:
    seconds = float(digits[4:])
  except ValueError:
    return None
  return 1e3 * (3600 * int(digits[:2]) + 60 * int(digits[2:4]) + seconds)
