"""Arrays as PNG: grey (h,w) or colour (h,w,3) uint8 -> bytes, and data URIs.

[PNG] W3C, Portable Network Graphics, 2nd edition, 2003.
"""

import base64
import struct
import zlib

import numpy as np


def encode(pixels):
  """Lossless 8-bit PNG: uint8 (h, w) or (h, w, 3) -> bytes. [PNG] Sec. 5, 9

  Raises:
    ValueError: for another type or shape.
  """
  pixels = np.ascontiguousarray(pixels)
  grey = pixels.ndim == 2
  if pixels.dtype != np.uint8 or not (grey or pixels.shape[2:] == (3,)):
    raise ValueError(
      f'pixels {pixels.dtype} {pixels.shape} came; uint8 (h, w) or (h, w, 3) is '
      'required; scale the intensities first'
    )
  height, width = pixels.shape[:2]
  rows = pixels.reshape(height, -1)
  above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
  # Filter 2 ('up'): neighbouring rows of a scan differ little.
  filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
  header = struct.pack('>IIBBBBB', width, height, 8, 0 if grey else 2, 0, 0, 0)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      _chunk(b'IHDR', header),
      _chunk(b'IDAT', zlib.compress(filtered.tobytes(), 9)),
      _chunk(b'IEND', b''),
    ]
  )


def size(data):
  """(width, height) of PNG bytes."""
  return struct.unpack('>II', data[16:24])


def data_uri(data):
  """PNG bytes -> text for an image's src."""
  return 'data:image/png;base64,' + base64.b64encode(data).decode('ascii')


def _chunk(kind, body):
  checksum = zlib.crc32(kind + body)
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', checksum)
