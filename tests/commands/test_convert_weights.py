"""The command ldm-jax-convert: there and back, and what it refuses."""

import json
import re
import struct

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from ldm_jax.commands import convert_weights
from ldm_jax.models import convert
from ldm_jax.models.interop import weights

CONFIG = {
  'spatial_dims': 2,
  'in_channels': 1,
  'out_channels': 1,
  'channels': [4, 4],
  'attention_levels': [False, False],
  'num_res_blocks': 1,
  'norm_num_groups': 2,
  'num_head_channels': 2,
}


@pytest.fixture
def files(tmp_path):
  config = tmp_path / 'unet.json'
  config.write_text(json.dumps(CONFIG))
  reference = convert_weights.read_reference('monai', config)
  rng = np.random.default_rng(0)
  drawn = {
    path: rng.normal(size=shape).astype('f4')
    for path, shape in reference.shapes().items()
  }
  tensors = convert.to_theirs(reference, unflatten_dict(drawn))
  weights.write(tmp_path / 'unet.safetensors', tensors)
  return tmp_path, tensors


def run(folder, *flags):
  return convert_weights.main([*flags, f'--config={folder / "unet.json"}'])


def test_there_and_back_every_tensor_keeps_its_bits(files):
  folder, tensors = files
  out, back = folder / 'checkpoint', folder / 'back.npz'
  assert (
    run(folder, '--from=monai', f'--weights={folder}/unet.safetensors', f'--out={out}')
    == 0
  )
  assert json.loads((out / 'module.json').read_text())['class'] == 'UNet'
  assert run(folder, '--to=monai', f'--weights={out}', f'--out={back}') == 0
  found = weights.read(back)
  assert set(found) == set(tensors)
  for name, value in tensors.items():
    np.testing.assert_array_equal(found[name], value)


def test_nothing_that_exists_is_written_over(files, capsys):
  folder, _ = files
  (folder / 'taken').mkdir()
  (folder / 'taken' / 'file').write_text('mine')
  flags = (
    '--from=monai',
    f'--weights={folder}/unet.safetensors',
    f'--out={folder}/taken',
  )
  assert run(folder, *flags) == 2
  assert 'not empty' in capsys.readouterr().err
  with pytest.raises(ValueError, match='exists'):
    weights.write(folder / 'unet.safetensors', {})


@pytest.mark.parametrize(
  ('name', 'content', 'says'),
  [
    ('a.safetensors', b'', 'could not be read'),
    ('b.safetensors', struct.pack('<Q', 2**60) + b'{}', 'could not be read'),
    ('c.npz', b'PK\x03\x04', 'could not be read'),
    ('d.txt', b'1', "the suffix '.txt'"),
    ('e.pt', b'no torch file', r'could not be read|torch is not installed'),
    (None, b'', 'does not exist'),
  ],
)
def test_a_broken_file_of_weights_is_one_paragraph(files, capsys, name, content, says):
  folder, _ = files
  path = folder / (name or 'missing.npz')
  if name:
    path.write_bytes(content)
  assert run(folder, '--from=monai', f'--weights={path}', f'--out={folder}/new') == 2
  message = capsys.readouterr().err
  assert re.search(says, message) and not (folder / 'new').exists()


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('[1]', 'no object'),
    ('{', 'could not be read'),
    ('{"_class_name": "VQModel"}', 'VQModel'),
  ],
)
def test_a_config_that_names_no_known_network_is_refused(tmp_path, text, says):
  (tmp_path / 'c.json').write_text(text)
  with pytest.raises(ValueError, match=says):
    convert_weights.read_reference('monai', tmp_path / 'c.json')
