"""One DICOM file -> its image planes, and the pixels of one of them (columns, rows).

Positions are in DICOM's patient coordinates, LPS mm. Enhanced (multi-frame) files give
one plane per frame. No message quotes the text of an element; the UID of a series tells
series apart and is kept as a hash.

[PS3.3] DICOM part 3: C.7.6.2 image plane, C.7.6.3 pixels, C.7.6.16 functional groups.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom import pixels as decoding
from pydicom.uid import UID

from ldm_jax.data.readers.dicom.container import Member, damaged
from ldm_jax.data.readers.dicom.elements import (
  GROUPS,
  PER_FRAME,
  TAGS,
  milliseconds,
  number,
  numbers,
  text,
)

# Names a dataset that pydicom would unpack at once, however large it becomes.
DEFLATED = b'1.2.840.10008.1.2.1.99'
MAX_PLANE = 2**26
MAX_FRAMES = 2**16
# No codec packs a scan tighter: what announces more is damaged or a bomb.
MAX_PACKED_RATIO = 1100


class Unusable(ValueError):
  """A file that was understood and refused."""


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
    description: of the series; chooses files and is shown to nobody.
    kind: what else must agree within one volume: image type, echo, frames per slice.
    times: clock -> number, of those that the file has (see `dicom_series.CLOCKS`).
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

  @property
  def normal(self) -> np.ndarray:
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
    if not number(top, 'Rows') or not number(top, 'Columns'):
      if 'Image Storage' in top.file_meta.get('MediaStorageSOPClassUID', UID('')).name:
        raise _refusal(member, 'is an image without Rows and Columns')
      return []
    _check_pixels(member, top, has_pixels)
    count = int(number(top, 'NumberOfFrames') or 1)
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
      member, f'has pixels of shape {pixels.shape}, announced are {plane.shape[::-1]}'
    )
  values = pixels.T.astype(np.float32)
  if plane.inverted:
    values = np.float32(sum(plane.stored)) - values
  slope, intercept = plane.rescale
  return values * np.float32(slope) + np.float32(intercept)


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
    found = numbers(item(keyword), keyword)
    if len(found) != count:
      raise _refusal(member, f'has no {keyword} of {count} numbers: no known place')
    return np.array(found)

  def value(keyword: str, default: float | None) -> float | None:
    found = number(item(keyword), keyword)
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
  bits = int(number(top, 'BitsStored') or number(top, 'BitsAllocated') or 16)
  signed = bool(number(top, 'PixelRepresentation'))
  echo = number(top, 'EchoTime') or value('EffectiveEchoTime', None)
  return Plane(
    member=member,
    frame=frame,
    position=values('ImagePositionPatient', 3),
    row=cosines[0] / lengths[0],
    column=cosines[1] / lengths[1],
    spacing=(columns_mm, rows_mm),
    shape=(int(number(top, 'Columns')), int(number(top, 'Rows'))),
    thickness=None if thickness is None else abs(thickness),
    rescale=(slope, intercept),
    inverted=text(top, 'PhotometricInterpretation') == 'MONOCHROME1',
    stored=(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1),
    series=hashlib.sha256(text(top, 'SeriesInstanceUID').encode()).hexdigest(),
    number=int(number(top, 'SeriesNumber') or 0),
    description=text(top, 'SeriesDescription'),
    # The third value tells magnitude from phase. [PS3.3] C.8.3.1.1.1
    kind=(
      tuple(text(top, 'ImageType').split('\\')[2:3]),
      echo,
      number(top, 'CardiacNumberOfImages'),
    ),
    times=_times(top, value, frame),
  )


def _times(top: pydicom.Dataset, value: Any, frame: int | None) -> dict[str, float]:
  """Clock -> ms or rank; times of day serve as differences only."""
  found = {
    'TriggerTime': number(top, 'TriggerTime'),
    'AcquisitionTime': milliseconds(text(top, 'AcquisitionTime')),
    'InstanceNumber': number(top, 'InstanceNumber'),
  }
  if frame is not None:
    found = {
      'TriggerTime': value('NominalCardiacTriggerDelayTime', None),
      'InstanceNumber': value('TemporalPositionIndex', float(frame)),
    }
  return {clock: time for clock, time in found.items() if time is not None}


def _check_pixels(member: Member, top: pydicom.Dataset, has_pixels: bool) -> None:
  """Refuses what cannot be read before anything of its size is allocated."""
  size, count = (int(number(top, k) or 1) for k in ('Rows', 'NumberOfFrames'))
  size *= int(number(top, 'Columns'))
  if number(top, 'SamplesPerPixel') not in (None, 1.0) or not text(
    top, 'PhotometricInterpretation'
  ).startswith('MONOCHROME'):
    raise _refusal(member, 'holds colours; required is one grey value per pixel')
  if 'ModalityLUTSequence' in top:
    raise _refusal(member, 'maps its values by a table (ModalityLUTSequence)')
  if size > MAX_PLANE or not 1 <= count <= MAX_FRAMES:
    raise _refusal(member, f'announces {count} frames of {size} pixels')
  if not has_pixels:
    raise _refusal(member, 'holds no pixels')
  needed = size * count * int(number(top, 'BitsAllocated') or 16) // 8
  packed = top.file_meta.TransferSyntaxUID.is_compressed
  if needed > member.size * (MAX_PACKED_RATIO if packed else 1):
    raise _refusal(
      member, f'announces {needed} bytes of pixels but holds {member.size}: truncated'
    )


def _refusal(member: Member, what: str) -> Unusable:
  return Unusable(
    f'{member.shown} {what}; required are grey-scale DICOM images, whole, with their '
    'place in the patient. Repair, convert or remove the file.'
  )
