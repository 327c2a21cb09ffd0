"""A 2D picture as a volume of one slice: JPEG or PNG -> (1,h,w), upright.

Rows run downwards and columns to the right as in the file; a radiograph seen from the
front has the patient's left on the right side of the picture. The affine says so:
(d,h,w) increase towards anterior, inferior, left. Such files carry no millimetres, so
their geometry is nominal: the longer side spans a detector of 430 mm, and one spacing
in `preprocess` brings pictures of every size onto one grid.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os

import numpy as np
from PIL import Image, ImageOps

from ldm_jax.data.readers import streams
from ldm_jax.data.readers.volume import Volume

SUFFIXES = ('.jpg', '.jpeg', '.png')
FORMATS = ('JPEG', 'PNG')
REQUIRED, ADVICE = 'a whole JPEG or PNG file', 'Copy it again, or remove it.'
# 35 x 43 cm, the usual detector of a chest radiograph.
LONGER_SIDE_MM = 430.0
MAX_PIXELS = 2**26
GREY = ('1', 'L', 'I', 'I;16', 'I;16B', 'I;16L', 'F')


@dataclasses.dataclass(frozen=True)
class ImageSource:
  """A picture in a file.

  Attributes:
    image: path of the JPEG or PNG.
    label: path of a PNG with integer labels of the same size, or None.
  """

  image: str
  label: str | None = None

  def read(self) -> tuple[Volume, Volume | None]:
    """Reads picture and labels. Raises ValueError when their sizes differ."""
    scan = read(self.image)
    if self.label is None:
      return scan, None
    values = _pixels(self.label, indexed=True)
    if values.shape != scan.array.shape[1:] or values.min() < 0 or values.max() > 255:
      raise ValueError(
        f'{self.label} is {values.shape} with values {values.min():g} to '
        f'{values.max():g}; expected labels 0..255 of the size of its picture, '
        f'{scan.array.shape[1:]}. Name the label file in options.label.'
      )
    return scan, Volume(values[None].astype(np.uint8), scan.affine)

  def fingerprint(self) -> str:
    """SHA-256 of the files' bytes and of how they are read."""
    digest = hashlib.sha256(f'image:{LONGER_SIDE_MM}'.encode())
    for path in (self.image, self.label):
      content = b'none' if path is None else streams.digest(path, REQUIRED, ADVICE)
      digest.update(b'|' + content)
    return digest.hexdigest()


def read(path: str | os.PathLike) -> Volume:
  """Reads a picture as float32 (1,h,w) with its nominal affine.

  Raises:
    ValueError: the file is missing, truncated, neither JPEG nor PNG, too large,
      coloured, or one constant value.
  """
  pixels = _pixels(path)
  if pixels.min() == pixels.max():
    raise ValueError(
      f'{path} holds one constant value ({pixels.flat[0]:g}) in all pixels; expected '
      'an image. Repair or remove the file.'
    )
  mm = LONGER_SIDE_MM / max(pixels.shape)
  affine = np.zeros((4, 4))
  affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = 1.0, -mm, -mm, 1.0
  affine[2, 3], affine[0, 3] = (mm * (n - 1) / 2 for n in pixels.shape)
  return Volume(pixels[None].astype(np.float32), affine)


def _pixels(path: str | os.PathLike, indexed: bool = False) -> np.ndarray:
  """(h,w) grey values, or the indices of a palette."""
  streams.require_file(path, REQUIRED, ADVICE)
  try:
    picture = Image.open(path, formats=FORMATS)
  except Exception as error:  # Pillow raises many kinds for a damaged header
    raise _damaged(path, error) from error
  with picture:
    width, height = picture.size
    if width * height > MAX_PIXELS:
      raise ValueError(
        f'{path} announces {width} x {height} pixels; expected at most {MAX_PIXELS}. '
        'The file is damaged, or must be made smaller.'
      )
    try:
      picture.load()
      upright = ImageOps.exif_transpose(picture)
    except Exception as error:
      raise _damaged(path, error) from error
  if upright.mode in GREY or (indexed and upright.mode == 'P'):
    return np.asarray(upright).astype(np.float32)
  colours = np.asarray(upright.convert('RGB')).astype(np.float32)
  if (np.ptp(colours, axis=-1) > 2).any():  # JPEG rounds equal channels apart
    raise ValueError(
      f'{path} is a colour picture ({upright.mode}); expected one grey value per '
      'pixel. Convert it to grey.'
    )
  return colours[..., 0]


def _damaged(path: str | os.PathLike, error: Exception) -> ValueError:
  reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return ValueError(f'{path} cannot be read ({reason}); expected {REQUIRED}. {ADVICE}')
