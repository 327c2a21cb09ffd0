"""Broken NIfTI files: what strangers send, made on the spot, each with its verdict.

`NIFTI` maps a name to (write into a folder -> path, words of the verdict); the verdict
READ means that the file is odd but right, and gives the voxels of `good()`. Run as a
script, with a JSON file to write, it reads every case in one process whose memory is
limited, five seconds each.
"""

import gzip
import importlib.util
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import sys
import time

import nibabel as nib
import numpy as np

READ = 'read'
SECONDS, WAIT_SECONDS, MEMORY = 5, 60, 512 * 2**20
SHAPE = (6, 5, 4)  # (x,y,z)
NIFTI = {}


def reads_dicom():
  """Whether this version of the package has a reader of DICOM."""
  return importlib.util.find_spec('ldm_jax.data.readers.dicom.planes') is not None


# Where DICOM is read, a folder may be a scan.
A_FOLDER = 'no DICOM image' if reads_dicom() else 'is a folder'


def voxels(dtype=np.int16, shape=SHAPE):
  return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


def nifti(array=None, kind=nib.Nifti1Image, affine=None, **header):
  """Bytes of a NIfTI file, with fields of its header replaced by (offset, format)."""
  affine = np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine
  image = kind(voxels() if array is None else array, affine)
  return patched(image.to_bytes(), **header)


FIELDS = {
  'dim': (40, 'h'),
  'datatype': (70, 'h'),
  'bitpix': (72, 'h'),
  'pixdim': (76, 'f'),
  'vox_offset': (108, 'f'),
  'scl_slope': (112, 'f'),
  'scl_inter': (116, 'f'),
  'qform_code': (252, 'h'),
  'sform_code': (254, 'h'),
  'quatern': (256, 'f'),
  'srow_x': (280, 'f'),
  'srow': (280, 'f'),
  'dim64': (16, 'q'),
}


def patched(content, **header):
  content = bytearray(content)
  for name, values in header.items():
    place, kind = FIELDS[name]
    values = values if isinstance(values, tuple) else (values,)
    struct.pack_into(f'<{len(values)}{kind}', content, place, *values)
  return bytes(content)


def case(name, verdict, file='scan.nii'):
  """Registers content -> file; the function returns bytes, or writes by itself."""

  def register(function):
    def write(folder):
      path = pathlib.Path(folder) / file
      content = function(path) if function.__code__.co_argcount else function()
      if isinstance(content, bytes):
        path.write_bytes(content)
      return path

    NIFTI[name] = (write, verdict)
    return function

  return register


def content(name, verdict, make, file='scan.nii'):
  case(name, verdict, file)(lambda: make())


def zeros(num_mib):
  """Gzip members that unpack to so many MiB of zeros: valid, and made at once."""
  return gzip.compress(bytes(2**20)) * num_mib


def flipped(data, place):
  data = bytearray(data)
  data[place] ^= 0xFF
  return bytes(data)


# Not NIfTI at all

for _name, _start in {
  'empty': b'',
  'text': b'this is no image\n' * 40,
  'html': b'<!DOCTYPE html><html><body>Please log in</body></html>' * 20,
  'png': b'\x89PNG\r\n\x1a\n' + bytes(600),
  'zip': b'PK\x03\x04' + bytes(600),
  'dicom': bytes(128) + b'DICM' + bytes(600),
  'hdf5': b'\x89HDF\r\n\x1a\n' + bytes(600),
  'git_lfs': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
  'random': np.random.default_rng(1).bytes(4096),
}.items():
  content(f'{_name}_as_nii', 'cannot be read as NIfTI', lambda s=_start: s)
content('zip_as_gz', 'a zip archive', lambda: b'PK\x03\x04' + bytes(600), 'a.nii.gz')
content('text_in_gz', 'cannot be read as NIfTI', lambda: gzip.compress(b'hello' * 99))
content('gzip_in_gzip', 'a gzip archive', lambda: gzip.compress(gzip.compress(nifti())))
content('wrong_magic', 'Analyze', lambda: flipped(nifti(), 344))
content('half_of_a_pair', 'pair', lambda: nifti()[:344] + b'ni1\0', 'a.hdr')

# Cut or damaged on the way

content('short_header', 'cannot be read as NIfTI', lambda: nifti()[:200])
content('no_voxels', 'announces', lambda: nifti()[:352])
content('short_body', 'announces', lambda: nifti()[:-1])


@case('short_gzip', 'truncated', 'a.nii.gz')
def _():
  packed = gzip.compress(nifti(voxels(shape=(40, 40, 9))))
  return packed[: len(packed) // 2]


content('gzip_mark_only', 'truncated', lambda: b'\x1f\x8b', 'a.nii.gz')
content('bad_crc', 'damaged', lambda: flipped(gzip.compress(nifti()), -6), 'a.nii.gz')
content('bad_deflate', 'damaged', lambda: flipped(gzip.compress(nifti()), 60), 'a.nii')

# Sizes

content('terabyte', 'announces', lambda: nifti(dim=(3, 32767, 32767, 1000)))
content(
  'terabyte_packed',
  'announces',
  lambda: gzip.compress(nifti(dim=(3, 32767, 32767, 1000))),
  'a.nii.gz',
)
content(
  'exabyte_of_nifti2',
  'announces',
  lambda: nifti(kind=nib.Nifti2Image, dim64=(3, 2**40, 2**20, 2)),
)
content(
  'size_that_overflows',
  'announces',
  lambda: nifti(kind=nib.Nifti2Image, dim64=(4, 2**62, 2**62, 4, 4)),
)


@case('bomb', 'which no scan does', 'a.nii.gz')
def _():
  header = nifti(dim=(3, 1024, 1024, 1000))[:352]
  return gzip.compress(header) + zeros(2000)


@case('bomb_of_many_frames', 'which no scan does', 'a.nii.gz')
def _():
  header = nifti(dim=(4, 512, 512, 64, 60))[:352]
  return gzip.compress(header) + zeros(1920)


@case('small_bomb', 'constant', 'a.nii.gz')
def _():
  return gzip.compress(nifti(dim=(3, 512, 512, 64))[:352]) + zeros(32)


@case('bomb_behind_the_voxels', READ, 'a.nii.gz')
def _():
  return gzip.compress(nifti()) + zeros(4000)


@case('bomb_in_an_extension', 'begin at byte', 'a.nii.gz')
def _():
  return gzip.compress(nifti(vox_offset=3e9)[:352]) + zeros(4000)


@case('sparse_file', 'bytes on the disk')
def _(path):
  path.write_bytes(nifti(dim=(3, 1024, 1024, 1000))[:352])
  os.truncate(path, 352 + 2 * 1000 * 2**20)


content('negative_size', 'has the shape', lambda: nifti(dim=(3, -6, 5, 4)))
content('no_size', 'has the shape', lambda: nifti(dim=(3, 6, 0, 4)))
content('no_axes', 'has the shape', lambda: nifti(dim=0))
content('nine_axes', 'has the shape', lambda: nifti(dim=9))
content('one_axis', 'has the shape', lambda: nifti(dim=(1, 120, 1, 1)))
content('five_axes', 'has the shape', lambda: nifti(voxels(shape=(6, 5, 4, 2, 3))))
content('frames', 'holds 3 frames', lambda: nifti(voxels(shape=(6, 5, 4, 3))))

# Types and intensities

RGB = np.dtype([('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
RGBA = np.dtype([*RGB.descr, ('A', 'u1')])
content('colours', 'colours', lambda: nifti(np.zeros(SHAPE, RGB)))
content('colours_and_alpha', 'colours', lambda: nifti(np.zeros(SHAPE, RGBA)))
content('complex', 'complex', lambda: nifti(voxels(np.complex64)))
for _code in (0, 1, 3, 999, -7):
  content(f'datatype_{_code}', 'type', lambda c=_code: nifti(datatype=c))


@case('nan_voxels', '1 NaN')
def _():
  array = voxels(np.float32)
  array[1, 2, 3] = np.nan
  return nifti(array)


@case('infinite_voxels', '1 NaN or infinite')
def _():
  array = voxels(np.float64)
  array[0, 0, 0] = 1e300
  return nifti(array)


content('constant', 'constant', lambda: nifti(np.full(SHAPE, 7, np.int16)))
content('intercept_nan', 'scl_inter', lambda: nifti(scl_slope=2.0, scl_inter=np.nan))
content('intercept_inf', 'scl_inter', lambda: nifti(scl_slope=2.0, scl_inter=np.inf))
content('slope_huge', 'infinite', lambda: nifti(scl_slope=3e38, scl_inter=0.0))

# Geometry

content('zero_affine', 'singular', lambda: nifti(srow=(0.0,) * 12))
content('parallel_axes', 'singular', lambda: nifti(srow_x=(0.0, 1, 0, 0)))
content('affine_nan', 'singular', lambda: nifti(srow_x=(np.nan, 0, 0, 0)))
content('affine_huge', 'absurd', lambda: nifti(srow_x=(1e30, 0, 0, 0)))
content('origin_huge', 'absurd', lambda: nifti(srow_x=(1.0, 0, 0, 1e30)))
content(
  'no_rotation',
  'qform',
  lambda: nifti(sform_code=0, qform_code=1, quatern=(5.0, 5.0, 5.0)),
)
content(
  'spacing_nan',
  'singular',
  lambda: nifti(sform_code=0, qform_code=0, pixdim=(1.0, np.nan, 1, 1)),
)
for _name, _value in {
  'nan': np.nan,
  'infinite': np.inf,
  'negative': -352.0,
  'in_the_header': 100.0,
  'broken': 352.5,
  'absurd': 1e30,
}.items():
  content(f'offset_{_name}', 'begin at byte', lambda v=_value: nifti(vox_offset=v))
content('offset_behind_the_end', 'announces', lambda: nifti(vox_offset=4096.0))

# Things that are no files

case('a_folder', A_FOLDER, 'a.nii.gz')(lambda path: path.mkdir())
case('a_pipe', 'is a pipe')(lambda path: os.mkfifo(path))
case('a_device', 'device')(lambda path: path.symlink_to('/dev/zero'))
case('a_loop_of_links', 'cannot be read')(lambda path: path.symlink_to(path.name))
case('a_dangling_link', 'does not exist')(lambda path: path.symlink_to('nowhere'))
case('a_file_as_a_folder', 'does not exist', 'file/scan.nii')(
  lambda path: path.parent.write_text('')
)


@case('a_locked_file', READ if os.geteuid() == 0 else 'Permission denied')
def _(path):
  path.write_bytes(nifti())
  path.chmod(0)


@case('a_socket', 'is a pipe')
def _(path):
  here = os.getcwd()
  os.chdir(path.parent)  # a socket's path is short
  socket.socket(socket.AF_UNIX).bind(path.name)
  os.chdir(here)


# Odd, and right

content('big_endian', READ, lambda: _big_endian())
content('int64', READ, lambda: _int64())
content('float64', READ, lambda: nifti(voxels(np.float64)))
content('nifti2', READ, lambda: nifti(kind=nib.Nifti2Image))
content('slope_zero', READ, lambda: nifti(scl_slope=0.0, scl_inter=np.nan))
content('slope_nan', READ, lambda: nifti(scl_slope=np.nan))
content('slope_infinite', READ, lambda: nifti(scl_slope=np.inf, scl_inter=3.0))
content('bitpix_wrong', READ, lambda: nifti(bitpix=3))
content('offset_left_out', READ, lambda: nifti(vox_offset=0.0))
content('more_bytes', READ, lambda: nifti() + b'more' * 99)
content('packed_as_nii', READ, lambda: gzip.compress(nifti()))
content('plain_as_gz', READ, lambda: nifti(), 'scan.nii.gz')
content('axes_of_one', READ, lambda: nifti(dim=(7, *SHAPE, 1, 1, 1, 1)))
content('name_not_ascii', READ, lambda: nifti(), 'Größe-тест-心臓 .nii')
content('name_of_control_characters', READ, lambda: nifti(), 'a\n\x1b[31mb.nii')
content('name_not_text', READ, lambda: nifti(), os.fsdecode(b'\xff\xfe.nii'))
content('name_very_long', READ, lambda: nifti(), 'n' * 251 + '.nii')


@case('huge_extension', READ)
def _():
  data = bytearray(nifti(vox_offset=400.0)[:352] + bytes(48) + nifti()[352:])
  struct.pack_into('<4b2i', data, 348, 1, 0, 0, 0, 2**31 - 16, 6)
  return bytes(data)


def _int64():
  image = nib.Nifti1Image(voxels(), np.diag([1.0, 1.0, 2.0, 1.0]), dtype=np.int64)
  return image.to_bytes()


def _big_endian():
  header = nib.Nifti1Header(endianness='>')
  image = nib.Nifti1Image(voxels(), np.diag([1.0, 1.0, 2.0, 1.0]), header)
  image.header.set_data_dtype('>i2')
  return image.to_bytes()


class Hangs(BaseException):
  """Passes through every handler of what is being read."""


def outcome(read, *args):
  """{'verdict', 'seconds' of computing} of reading; errors other than for users show.

  Seconds of this process's own, because the machine may be busy; what waits for ever
  is stopped by the clock.
  """

  def late(*_):
    raise Hangs

  signal.signal(signal.SIGALRM, late)
  signal.alarm(WAIT_SECONDS)
  start = time.process_time()
  try:
    verdict = read(*args) or READ
  except ValueError as error:
    ours = type(error) is ValueError or 'ldm_jax' in type(error).__module__
    verdict = f'{"" if ours else "TRACEBACK "}{error}'
  except Hangs:
    verdict = 'HANGS'
  except Exception as error:
    verdict = f'TRACEBACK {type(error).__name__}: {error}'
  finally:
    signal.alarm(0)
  return {'verdict': verdict, 'seconds': time.process_time() - start}


def limit_memory(more=MEMORY):
  """From here on this process may take `more` bytes beside what it has."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  limit = pages * resource.getpagesize() + more
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def read_scan(path):
  from ldm_jax.data.readers import volume

  array = volume.read(path, stack=True).array
  expected = voxels().transpose(2, 1, 0).astype(np.float32)
  if array.shape != expected.shape or not np.array_equal(array, expected):
    return f'other voxels: {array.shape}'


def main(folder, result):
  from tests.data import hostile_trees

  jobs = {}
  for name, (write, _) in NIFTI.items():
    place = pathlib.Path(folder) / name
    place.mkdir()
    jobs[name] = (read_scan, write(place))
  for name, (write, _, options) in hostile_trees.TREES.items():
    place = pathlib.Path(folder) / name
    hostile_trees.good(place)
    write(place)
    jobs[name] = (hostile_trees.read, place, options)
  if reads_dicom():
    from tests.data import hostile_dicom

    for name, (write, _) in hostile_dicom.DICOM.items():
      place = pathlib.Path(folder) / name
      place.mkdir()
      jobs[name] = (read_scan, write(place))
  limit_memory()
  found = {name: outcome(*job) for name, job in jobs.items()}
  # Not ru_maxrss: that begins with what the process held that started this one.
  status = pathlib.Path('/proc/self/status').read_text()
  peak = 1024 * int(re.search(r'VmHWM:\s+(\d+)', status).group(1))
  pathlib.Path(result).write_text(json.dumps({'cases': found, 'peak': peak}))


if __name__ == '__main__':
  main(*sys.argv[1:])
