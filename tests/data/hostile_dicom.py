"""Broken DICOM folders and zips, each with its verdict.

`DICOM` maps a name to (writes a series into a folder and spoils it -> path to read,
words of the verdict). Needs pydicom.
"""

import functools
import io
import os
import struct
import zipfile

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from tests.data.hostile import READ, voxels

DICOM = {}


def made(number, edit=None):
  """Bytes of slice `number` of a stack whose voxels are those of `hostile.voxels`."""
  meta = FileMetaDataset()
  meta.TransferSyntaxUID = ExplicitVRLittleEndian
  meta.MediaStorageSOPClassUID = MRImageStorage
  meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
  item = pydicom.Dataset()
  item.file_meta = meta
  item.SOPClassUID, item.SOPInstanceUID = (
    MRImageStorage,
    meta.MediaStorageSOPInstanceUID,
  )
  item.Modality, item.SeriesInstanceUID = 'MR', generate_uid(entropy_srcs=['series'])
  item.InstanceNumber = number + 1
  # Rows of the file run to the front, as those of `voxels` do.
  item.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
  item.ImagePositionPatient = [0, 0, 2 * number]
  item.PixelSpacing, item.SliceThickness = [1, 1], 2
  item.Rows, item.Columns = 5, 6
  item.SamplesPerPixel, item.PhotometricInterpretation = 1, 'MONOCHROME2'
  item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
  item.PixelRepresentation = 1
  item.PixelData = voxels()[:, :, number].T.astype('<i2').tobytes()
  if edit is not None:
    edit(item)
  stream = io.BytesIO()
  pydicom.dcmwrite(stream, item, enforce_file_format=True)
  return stream.getvalue()


def good(root, edit=None, which=range(4)):
  """Writes the four slices; `edit` changes those in `which`."""
  for number in range(4):
    chosen = edit if number in which else None
    (root / f'{number}.dcm').write_bytes(made(number, chosen))


def case(name, verdict):
  def register(function):
    def write(root):
      return function(root) or root

    DICOM[name] = (write, verdict)
    return function

  return register


def series(name, verdict, edit, which=range(4)):
  case(name, verdict)(functools.partial(_edited, edit=edit, which=which))


def _edited(root, edit, which):
  good(root, edit, which)


def put(**values):
  def edit(item):
    for name, value in values.items():
      setattr(item, name, value)

  return edit


def drop(*names):
  def edit(item):
    for name in names:
      delattr(item, name)

  return edit


series('dicom', READ, None)
series('dicom_without_pixels', 'pixel', drop('PixelData'))
series('dicom_one_without_pixels', 'pixel', drop('PixelData'), (2,))
series('dicom_without_position', 'ImagePosition', drop('ImagePositionPatient'))
series('dicom_without_size', 'Rows', drop('Rows', 'Columns'))
series('dicom_of_another_size', 'size', put(Rows=6, Columns=5), (1,))
series('dicom_of_65535_rows', '65535', put(Rows=65535, Columns=65535))
series('dicom_of_no_rows', 'Rows', put(Rows=0))
series('dicom_of_a_billion_frames', 'frames', put(NumberOfFrames=10**9))
series('dicom_spacing_zero', '0 x 0 mm', put(PixelSpacing=[0, 0]))
series(
  'dicom_axes_parallel', 'no right angle', put(ImageOrientationPatient=[1, 0, 0] * 2)
)
series('dicom_mixed_series', 'series', put(SeriesInstanceUID='1.2.3'), (0, 1))
series(
  'dicom_colours', 'colour', put(SamplesPerPixel=3, PhotometricInterpretation='RGB')
)
series('dicom_slice_missing', 'mm', put(ImagePositionPatient=[0, 0, 99]), (3,))
series('dicom_pixels_cut', 'pixel', put(PixelData=b'\0' * 10))


@case('dicom_empty_folder', 'DICOM')
def _(root):
  (root / 'notes.txt').write_text('nothing here')


@case('dicom_truncated', 'damaged')
def _(root):
  good(root)
  (root / '1.dcm').write_bytes(made(1)[:-30])


@case('dicom_element_of_4_GB', READ)  # no more than there is, and that is all
def _(root):
  good(root)
  data = made(1)
  place = data.rindex(b'OW')
  (root / '1.dcm').write_bytes(
    data[: place + 4] + struct.pack('<I', 2**32 - 2) + data[place + 8 :]
  )


@case('dicom_with_a_pipe', READ)
def _(root):
  good(root)
  os.mkfifo(root / '9.dcm')


@case('dicom_with_a_ring_of_links', READ)
def _(root):
  good(root)
  (root / 'ring').symlink_to('.')


def zipped(name, verdict, *members, **options):
  @case(name, verdict)
  def _(root):
    path = root / 'scan.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, **options) as archive:
      for member, content in members:
        archive.writestr(member, content() if callable(content) else content)
    return path


SLICES = [(f'{n}.dcm', functools.partial(made, n)) for n in range(4)]
zipped('zip', READ, *SLICES)
zipped(
  'zip_that_leaves_the_folder',
  'lead out of it',
  *SLICES[:3],
  ('../../3.dcm', SLICES[3][1]),
)
zipped('zip_without_dicom', 'DICOM', ('a.txt', 'hello'))
zipped('zip_empty', 'DICOM')
zipped('zip_of_a_zip', 'no DICOM image', ('inner.zip', b'PK\x05\x06' + bytes(18)))


@case('zip_bomb', 'more than')
def _(root):
  path = root / 'scan.zip'
  with (
    zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    archive.open('bomb.dcm', 'w') as member,
  ):
    member.write(made(0))
    for _ in range(520):
      member.write(bytes(2**20))
  return path


@case('zip_truncated', 'damaged')
def _(root):
  path = DICOM['zip'][0](root)
  path.write_bytes(path.read_bytes()[:-60])
  return path


@case('zip_of_noise', 'damaged')
def _(root):
  (root / 'scan.zip').write_bytes(b'PK\x03\x04' + np.random.default_rng(0).bytes(999))
  return root / 'scan.zip'
