"""Laws of pictures: upright, in the world, and through the same way as volumes."""

import os

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers import picture, volume
from ldm_jax.data.store.store import open_split, prepare


@pytest.fixture
def save_picture(tmp_path):
  """Writes (h,w) or (h,w,3) uint8 or uint16 as a picture; random by default."""

  def save(name='a.png', pixels=None, shape=(30, 40), **options):
    if pixels is None:
      pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, **options)
    return str(tmp_path / name)

  return save


def test_a_picture_is_one_upright_slice_with_its_place_in_the_world(save_picture):
  pixels = np.zeros((30, 40), np.uint8)
  pixels[0, 0] = 200  # upper left: superior, the patient's right
  scan = picture.read(save_picture(pixels=pixels))
  assert scan.array.shape == (1, 30, 40) and scan.array.dtype == np.float32
  assert scan.array[0, 0, 0] == 200
  corners = scan.affine @ np.array([[0, 0, 0, 1], [0, 29, 39, 1]]).T
  right, left = corners[0]
  upper, lower = corners[2]
  assert right > 0 > left and upper > 0 > lower
  assert scan.spacing[2] * 40 == pytest.approx(picture.LONGER_SIDE_MM)
  assert scan.spacing[1] == scan.spacing[2]


def test_grey_pictures_of_any_depth_and_kind_are_read_exactly(save_picture):
  wide = np.random.default_rng(0).integers(0, 60000, (8, 9)).astype(np.uint16)
  assert (picture.read(save_picture('wide.png', wide)).array[0] == wide).all()
  grey = np.arange(72, dtype=np.uint8).reshape(8, 9)
  coloured = np.repeat(grey[..., None], 3, -1)  # grey saved as colour
  assert (picture.read(save_picture('grey.png', coloured)).array[0] == grey).all()
  assert picture.read(save_picture('b.jpg')).array.shape == (1, 30, 40)


def test_a_picture_taken_sideways_is_set_upright(save_picture):
  exif = Image.Exif()
  exif[0x0112] = 6  # 90 degrees
  assert picture.read(save_picture('a.jpg', exif=exif)).array.shape == (1, 40, 30)


def test_pictures_of_all_sizes_come_onto_one_grid_and_back(save_picture):
  spec = preprocess.Spec((1, 16, 16), (None, *(picture.LONGER_SIDE_MM / 16,) * 2))
  for name, shape in (('a.png', (32, 48)), ('b.png', (64, 64))):
    pixels = np.zeros(shape, np.uint8)
    pixels[shape[0] // 2 :, :] = 255
    scan = picture.read(save_picture(name, pixels))
    done = preprocess.apply(spec, scan)
    assert done.array.shape == (1, 16, 16)
    assert abs(done.mask.sum() / 16 - 16 * shape[0] / shape[1]) < 1
    lower = done.array[0, 9:][done.mask[0, 9:]]
    assert lower.min() > 0.999 and done.array[0, 0, 0] == 0
    back = preprocess.invert(done.array, done.record)
    assert back.array.shape == scan.array.shape
    assert np.abs(back.array - scan.array).mean() < 15


def test_a_picture_written_as_nifti_keeps_every_pixel_in_place(save_picture, tmp_path):
  scan = picture.read(save_picture())
  volume.write(tmp_path / 'a.nii.gz', scan.array, scan.affine, scan.source)
  again = volume.read(tmp_path / 'a.nii.gz', stack=True)
  at = np.linalg.inv(again.affine) @ scan.affine @ np.array([0, 3, 7, 1])
  assert again.array[tuple(np.rint(at[:3]).astype(int))] == scan.array[0, 3, 7]


def test_pictures_and_their_labels_pass_through_the_store(save_picture, tmp_path):
  mask = np.zeros((30, 40), np.uint8)
  mask[10:20, 10:20] = 3
  source = picture.ImageSource(save_picture(), save_picture('seg.png', mask))
  cohort = Cohort('x', Schema(), (Record('r', 'p', source),))
  mm = picture.LONGER_SIDE_MM / 20
  prepare(tmp_path / 's', cohort, preprocess.Spec((1, 20, 20), (None, mm, mm)))
  split = open_split(tmp_path / 's', 'x')
  assert split.volumes([0]).shape == (1, 1, 20, 20, 1)
  assert (split.labels([0]) == 3).sum() == 25
  with pytest.raises(ValueError, match='size of its picture'):
    picture.ImageSource(source.image, save_picture('small.png', mask[:5])).read()


def test_the_fingerprint_follows_the_bytes(save_picture):
  one, two = save_picture(), save_picture('b.png', np.eye(9, dtype=np.uint8))
  prints = [picture.ImageSource(*files).fingerprint() for files in ((one,), (two,))]
  assert prints[0] != prints[1] != picture.ImageSource(one, two).fingerprint()


def test_a_damaged_picture_is_one_clear_error(save_picture, tmp_path):
  with open(save_picture('a.jpg'), 'rb') as file:
    content = file.read()
  for name, damaged, message in (
    ('cut.jpg', content[: len(content) // 2], 'cannot be read'),
    ('text.png', b'no picture', 'cannot be read'),
    ('empty.jpg', b'', 'cannot be read'),
  ):
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(ValueError, match=message):
      picture.read(tmp_path / name)
  with pytest.raises(ValueError, match='cannot be read'):
    picture.read(tmp_path / 'none.png')
  with pytest.raises(ValueError, match='cannot be read'):
    picture.ImageSource(str(tmp_path / 'none.png')).fingerprint()
  os.mkfifo(tmp_path / 'pipe.png')
  with pytest.raises(ValueError, match='is a pipe'):
    picture.read(tmp_path / 'pipe.png')
  with pytest.raises(ValueError, match='one constant value'):
    picture.read(save_picture('flat.png', np.zeros((5, 5), np.uint8)))
  with pytest.raises(ValueError, match='colour picture'):
    picture.read(save_picture('red.png', np.eye(3, dtype=np.uint8)[None] * 255))


def test_a_header_that_announces_a_huge_picture_allocates_nothing(
  save_picture, tmp_path, monkeypatch
):
  monkeypatch.setattr(picture, 'MAX_PIXELS', 1000)
  with pytest.raises(ValueError, match='announces 40 x 30 pixels'):
    picture.read(save_picture())
