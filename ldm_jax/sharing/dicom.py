"""A synthetic volume as DICOM: one series, one file a slice, as every viewer opens it.

Says SYNTHETIC where viewers and archives show a name, has UIDs of its own (2.25, of
the content: equal volumes have equal ones) and neither dates nor anything of a person.
`data.readers.dicom` reads it back.

[PS3.3] DICOM part 3: C.7.6.2 image plane, C.7.6.3 pixels, C.11.1 rescaling, C.12.1 SOP
common.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
  CTImageStorage,
  ExplicitVRLittleEndian,
  MRImageStorage,
  SecondaryCaptureImageStorage,
)
from pydicom.valuerep import format_number_as_ds

# Modality -> kind of file; what has no plain image of its own is a secondary capture.
STORED_AS = {
  'MR': MRImageStorage,
  'CT': CTImageStorage,
  'OT': SecondaryCaptureImageStorage,
}
# What each kind requires besides; '' is allowed to be empty.
OF_KIND = {
  'MR': {
    'ScanningSequence': 'RM',  # research mode: no sequence was played
    'SequenceVariant': 'NONE',
    'ScanOptions': '',
    'MRAcquisitionType': '',
    'EchoTime': None,
    'RepetitionTime': None,
    'EchoTrainLength': None,
  },
  'CT': {'KVP': None, 'AcquisitionNumber': None, 'RescaleType': 'US'},
  'OT': {'ConversionType': 'SYN'},  # synthetic image
}
# Patient, study and series attributes that must be there and are of nobody.
EMPTY = (
  *('PatientBirthDate', 'PatientSex', 'StudyDate', 'StudyTime', 'StudyID'),
  *('AccessionNumber', 'ReferringPhysicianName', 'PatientPosition'),
  *('PositionReferenceIndicator', 'Laterality'),
)
LARGEST = 2**16 - 1
LO = 64  # letters of a short text
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def slices(
  array: np.ndarray,
  affine: np.ndarray,
  *,
  name: str,
  note: str,
  about: Mapping[str, Any],
  patient: str = '',
) -> Iterator[bytes]:
  """The files of one volume, from its first slice on.

  Args:
    array: (d,h,w) in [0,1], stored in 65536 steps.
    affine: (4,4), (d,h,w,1) -> world RAS mm, with perpendicular axes.
    name: of the volume.
    note: what the volume is, in a sentence or two.
    about: of the model, see `SharedModel`; its 'modality' is a key of STORED_AS.
    patient: name of the synthetic patient; that of the volume by default.

  Raises:
    ValueError: values outside [0,1].
  """
  array = np.asarray(array, np.float64)
  if not (array.min() >= 0 and array.max() <= 1):
    raise ValueError(
      f'Expected a volume in [0,1], got {array.min():g} to {array.max():g}; write it '
      'as NIfTI.'
    )
  # Rows run to the back and columns to the left, as viewers show axial slices.
  flipped = np.rint(array[:, ::-1, ::-1] * LARGEST).astype('<u2')
  first = np.asarray(affine, np.float64) @ _turned(array.shape)
  steps = first[:3, :3] * RAS_TO_LPS[:, None]  # of slice, row, column, in LPS mm
  sizes = np.linalg.norm(steps, axis=0)
  mark = hashlib.sha256(flipped.tobytes())
  mark.update(f'{name} {note} {first.round(4).tolist()}'.encode())
  shared = _shared(patient or name, note, about, mark.hexdigest())
  row, column = steps[:, 2] / sizes[2], steps[:, 1] / sizes[1]
  shared.ImageOrientationPatient = list(map(_ds, (*row, *column)))
  shared.PixelSpacing = [_ds(sizes[1]), _ds(sizes[2])]
  shared.SliceThickness = shared.SpacingBetweenSlices = _ds(sizes[0])
  shared.Rows, shared.Columns = array.shape[1:]
  for index, pixels in enumerate(flipped):
    dataset = Dataset(shared)
    position = first[:3, 3] * RAS_TO_LPS + index * steps[:, 0]
    dataset.ImagePositionPatient = list(map(_ds, position))
    dataset.SliceLocation = _ds(index * sizes[0])
    dataset.InstanceNumber = index + 1
    dataset.SOPInstanceUID = _uid(mark.hexdigest(), index)
    dataset.add_new('PixelData', 'OW', pixels.tobytes())
    yield _file(dataset)


def _turned(shape):
  """(4,4): index of a flipped voxel -> index in (d,h,w)."""
  turn = np.diag([1.0, -1.0, -1.0, 1.0])
  turn[1:3, 3] = shape[1] - 1, shape[2] - 1
  return turn


def _shared(name, note, about, mark):
  """What all slices of a volume have."""
  modality = about['modality']
  dataset = Dataset()
  dataset.SpecificCharacterSet = 'ISO_IR 192'
  dataset.SOPClassUID = STORED_AS[modality]
  dataset.Modality = modality
  kind = 'AXIAL' if modality == 'CT' else 'OTHER'
  dataset.ImageType = ['DERIVED', 'SECONDARY', kind, 'SYNTHETIC']
  dataset.SyntheticData = 'YES'
  for keyword in EMPTY:
    setattr(dataset, keyword, '')
  for keyword, value in OF_KIND[modality].items():
    setattr(dataset, keyword, value)
  number = name.rpartition('synthetic')[2].strip('_') or name
  dataset.PatientName = f'SYNTHETIC^{number}'
  dataset.PatientID = f'SYNTHETIC-{number}'[:LO]
  dataset.PatientComments = note
  dataset.StudyDescription = f'SYNTHETIC, {about["name"]}'[:LO]
  dataset.SeriesDescription = f'SYNTHETIC, {about["model"]}'[:LO]
  dataset.SeriesNumber = 1
  dataset.StudyInstanceUID = _uid(mark, 'study')
  dataset.SeriesInstanceUID = _uid(mark, 'series')
  dataset.FrameOfReferenceUID = _uid(mark, 'frame')
  program, _, version = about['made_by'].partition(' ')
  dataset.Manufacturer = program
  dataset.ManufacturerModelName = about['model'][:LO]
  dataset.SoftwareVersions = version[:LO]
  dataset.DerivationDescription = note[:1024]
  dataset.ImageComments = note
  dataset.BurnedInAnnotation = 'NO'
  dataset.RecognizableVisualFeatures = 'NO'
  if about['protected']:  # otherwise a volume may resemble a patient
    dataset.PatientIdentityRemoved = 'YES'
    dataset.DeidentificationMethod = 'Synthetic: no person was scanned'
  else:
    del dataset.RecognizableVisualFeatures
  dataset.LossyImageCompression = '00'
  dataset.SamplesPerPixel = 1
  dataset.PhotometricInterpretation = 'MONOCHROME2'
  dataset.BitsAllocated = dataset.BitsStored = 16
  dataset.HighBit = 15
  dataset.PixelRepresentation = 0
  dataset.RescaleIntercept = '0'
  dataset.RescaleSlope = _ds(1 / LARGEST)
  dataset.WindowCenter, dataset.WindowWidth = '0.5', '1'
  return dataset


def _file(dataset):
  """The content of a file."""
  meta = FileMetaDataset()
  meta.MediaStorageSOPClassUID = dataset.SOPClassUID
  meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
  meta.TransferSyntaxUID = ExplicitVRLittleEndian
  dataset.file_meta = meta
  stream = io.BytesIO()
  pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
  return stream.getvalue()


def _uid(mark, part):
  """A UID of 128 bits, which needs no registered root."""
  digest = hashlib.sha256(f'{mark} {part}'.encode()).digest()
  return f'2.25.{int.from_bytes(digest[:16], "big")}'


def _ds(number):
  """A number as DICOM writes it, in at most 16 letters."""
  return format_number_as_ds(float(number) + 0.0)
