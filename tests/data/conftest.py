"""Small NIfTI files and trees shaped like the real data sets."""

import pathlib

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def save_nifti():
  """Writes (x,y,z[,t]) voxels and an affine as NIfTI; random voxels by default."""

  def save(path, voxels=None, affine=None, shape=(6, 5, 4), seed=0):
    if voxels is None:
      voxels = np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path

  return save


@pytest.fixture(scope='session')
def save_dicom():
  """Writes (x,y) pixels as a DICOM file; keywords set or (None) delete elements."""
  import pydicom
  from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

  def save(path, pixels=None, syntax=ExplicitVRLittleEndian, **elements):
    if pixels is None:
      pixels = np.arange(30, dtype=np.int16).reshape(6, 5)
    data = pydicom.Dataset()
    data.file_meta = pydicom.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    uid = generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
    pixels = np.asarray(pixels)
    data.Columns, data.Rows = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, 'MONOCHROME2'
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == 'i')
    data.SeriesInstanceUID = '1.2.3.4'
    data.Modality, data.InstanceNumber = 'MR', 1
    data.ImageOrientationPatient, data.ImagePositionPatient = (
      [1, 0, 0, 0, 1, 0],
      [0] * 3,
    )
    data.PixelSpacing, data.SliceThickness = [1.0, 1.0], 1.0
    data.PixelData = np.ascontiguousarray(pixels.T).tobytes()
    for keyword, value in elements.items():
      if value is None:
        delattr(data, keyword)
      else:
        setattr(data, keyword, value)
    if syntax.is_compressed:
      data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
      data.compress(syntax, generate_instance_uid=False)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path

  return save


@pytest.fixture(scope='session')
def save_series(save_dicom):
  """Writes (x,y,z[,t]) voxels and a RAS affine as a shuffled series of files.

  `element(z, t)` gives further elements of a file; files are `IM-0001.dcm`, ... in an
  order that has nothing to do with place or time.
  """

  def save(folder, voxels, affine, element=lambda z, t: {}, seed=0):
    voxels = np.asarray(voxels)
    voxels = voxels if voxels.ndim == 4 else voxels[..., None]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = (lps[:3, :2] / spacing[:2]).T.ravel()
    order = np.random.default_rng(seed).permutation(voxels.shape[2] * voxels.shape[3])
    for number, index in enumerate(order):
      z, t = divmod(int(index), voxels.shape[3])
      place = lps[:3, 3] + z * lps[:3, 2]
      elements = {
        'ImageOrientationPatient': [f'{c:.12f}'[:16] for c in cosines],
        'ImagePositionPatient': [f'{p:.10f}'[:16] for p in place],
        'PixelSpacing': [float(spacing[1]), float(spacing[0])],
        'SliceThickness': float(spacing[2]),
        'InstanceNumber': number + 1,
      }
      if voxels.shape[3] > 1:
        elements['TriggerTime'] = 25.0 * t
      name = f'IM-{number + 1:04d}.dcm'
      save_dicom(
        pathlib.Path(folder) / name, voxels[:, :, z, t], **elements | element(z, t)
      )
    return pathlib.Path(folder)

  return save
