"""Laws of NIfTI files: what is refused, and by which words."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from ldm_jax.data.readers import nifti
from ldm_jax.data.readers.nifti import read_frame, read_header


def refuse(path, *words):
  with pytest.raises(ValueError) as error:
    read_frame(path)
  message = str(error.value)
  assert str(path) in message and '\n' not in message
  assert all(word in message for word in words), message


def test_a_frame_of_a_cine_must_be_named(tmp_path, save_nifti):
  path = save_nifti(tmp_path / 'cine.nii', shape=(6, 5, 4, 3))
  with pytest.raises(ValueError, match=r'3 frames.*options\.frame'):
    read_frame(path)
  with pytest.raises(ValueError, match='0 to 2'):
    read_frame(path, frame=3)
  expected = nib.load(path).get_fdata()[..., 1]
  assert np.array_equal(read_frame(path, frame=1)[0], expected.transpose(2, 1, 0))


def test_trailing_axes_of_one_are_no_axes(tmp_path, save_nifti):
  path = save_nifti(tmp_path / 'a.nii', shape=(6, 5, 4, 1, 1))
  assert read_frame(path)[0].shape == (4, 5, 6)


def test_a_slice_is_a_volume_of_depth_one(tmp_path, save_nifti):
  path = save_nifti(tmp_path / 'a.nii', shape=(6, 5))
  assert read_frame(path)[0].shape == (1, 5, 6)


def test_a_missing_file_is_refused(tmp_path):
  refuse(tmp_path / 'none.nii.gz', 'does not exist')


@pytest.mark.parametrize('ending', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('share', [0.02, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path, save_nifti, ending, share):
  path = save_nifti(tmp_path / f'a{ending}', shape=(30, 20, 10))
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  refuse(path)


@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz', 'a.png', 'a'])
@pytest.mark.parametrize(
  'content', [b'', b'hello', b'\x1f\x8b' + bytes(40), bytes(500)]
)
def test_a_file_that_is_no_nifti_is_refused(tmp_path, name, content):
  path = tmp_path / name
  path.write_bytes(content)
  refuse(path)


def test_five_axes_are_refused(tmp_path, save_nifti):
  refuse(save_nifti(tmp_path / 'a.nii', shape=(4, 4, 4, 2, 3)), 'shape')


def test_colours_are_refused(tmp_path, save_nifti):
  colour = np.dtype([('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
  refuse(save_nifti(tmp_path / 'a.nii', np.zeros((4, 4, 4), colour)), 'colours')


def test_complex_numbers_are_refused(tmp_path, save_nifti):
  refuse(save_nifti(tmp_path / 'a.nii', np.ones((4, 4, 4), np.complex64)), 'complex')


@pytest.mark.parametrize('kind', ['zero', 'parallel', 'nan'])
def test_a_singular_affine_is_refused(tmp_path, save_nifti, kind):
  affine = np.eye(4)
  path = save_nifti(tmp_path / 'a.nii', affine=affine)
  content = bytearray(path.read_bytes())
  row = {'zero': (0, 0, 0, 0), 'parallel': (0, 1, 0, 0), 'nan': (np.nan, 0, 0, 0)}[kind]
  content[280:296] = struct.pack('<4f', *row)  # srow_x
  path.write_bytes(content)
  refuse(path, 'singular')


@pytest.mark.parametrize('ending', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('dims', [(30000, 30000, 30000), (2000, 1000, 1000)])
def test_a_header_that_promises_terabytes_allocates_nothing(
  tmp_path, save_nifti, ending, dims
):
  content = bytearray(save_nifti(tmp_path / 'small.nii').read_bytes())
  content[42:48] = struct.pack('<3h', *dims)
  path = tmp_path / f'huge{ending}'
  path.write_bytes(gzip.compress(bytes(content)) if ending.endswith('gz') else content)
  refuse(path, 'announces')


def test_a_header_knows_slices_spacing_and_voxel_volume(tmp_path, save_nifti):
  path = save_nifti(tmp_path / 'a.nii', affine=np.diag([1.5, 1.5, 8.0, 1]))
  header = read_header(path, stack=True)
  assert header.shape == (4, 5, 6)
  np.testing.assert_allclose(header.spacing, [8, 1.5, 1.5])
  assert header.voxel_ml == pytest.approx(0.018)


RIGHT, LEFT = (
  np.diag([1.0, 1, 1, 1]),
  np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
)


def placed(path, sform, qform, codes, unit='mm'):
  image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(6, 5, 4), sform)
  image.set_sform(sform, codes[0])
  image.set_qform(qform, codes[1])
  image.header.set_xyzt_units(unit)
  nib.save(image, path)
  return path


@pytest.mark.parametrize(
  ('codes', 'qform', 'axes', 'told'),
  [
    # Axis codes by nibabel, trust_sform, trust_qform; None: strict reads it, too.
    ((0, 0), RIGHT, 'LRR', 'sform_code and qform_code'),
    ((1, 1), LEFT, 'RRL', r'sform .* and qform .* apart'),
    ((0, 1), LEFT, 'LLL', None),
    ((1, 0), LEFT, 'RRR', None),
    ((2, 1), RIGHT, 'RRR', None),
  ],
)
def test_one_rule_decides_where_a_header_states_no_place_or_two(
  tmp_path, codes, qform, axes, told
):
  path = placed(tmp_path / 's.nii', RIGHT, qform, codes)
  rules = ('nibabel', 'trust_sform', 'trust_qform')
  headers = [nifti.read_header(path, orientation=rule) for rule in rules]
  assert ''.join(nib.aff2axcodes(h.grid.affine)[0] for h in headers) == axes
  assert np.array_equal(headers[0].grid.affine, nib.load(path).affine)
  for header in headers:
    assert [r.kind for r in header.remarks] == (['orientation'] if told else [])
  if told is None:
    assert nifti.read_header(path, orientation='strict').remarks == ()
  else:
    with pytest.raises(ValueError, match=f'{told}.*preprocess.orientation='):
      nifti.read_header(path, orientation='strict')


def test_a_qform_that_differs_by_rounding_alone_is_no_contradiction(tmp_path):
  turned, (c, s) = np.eye(4), (np.cos(0.3), np.sin(0.3))
  turned[:2, :2] = [[c, -s], [s, c]]
  path = placed(tmp_path / 's.nii', turned, turned + 1e-5, (1, 1))
  assert nifti.read_header(path, orientation='strict').remarks == ()


@pytest.mark.parametrize(('unit', 'factor'), [('meter', 1e-3), ('micron', 1e3)])
def test_lengths_in_other_units_become_mm(tmp_path, unit, factor):
  affine = np.diag([factor * 2, factor * 3, factor * 4, 1.0])
  affine[:3, 3] = factor * np.array([7, -8, 9])
  header = nifti.read_header(placed(tmp_path / 's.nii', affine, affine, (1, 1), unit))
  expected = np.diag([2.0, 3.0, 4.0, 1.0])
  expected[:3, 3] = 7, -8, 9
  assert np.allclose(header.grid.affine, expected, rtol=1e-5)
  assert [remark.kind for remark in header.remarks] == ['unit']


def test_a_unit_that_makes_a_scan_absurd_is_named(tmp_path):
  affine = np.diag([0.9, 0.9, 5.0, 1.0])
  path = placed(tmp_path / 's.nii', affine, affine, (1, 1), 'meter')
  with pytest.raises(ValueError, match=r'metres.*xyzt_units'):
    nifti.read_header(path)
