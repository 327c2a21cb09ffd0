"""Files of weights: what is written is read, and what is no weights is refused."""

import numpy as np
import pytest

from ldm_jax.models.interop import weights

TENSORS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'a.bias': np.ones(3),
}


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
def test_what_is_written_is_read_bit_for_bit_and_never_replaced(tmp_path, suffix):
  path = tmp_path / 'made' / f'w.{suffix}'
  weights.write(path, TENSORS)
  found = weights.read(path)
  assert set(found) == set(TENSORS)
  for name, value in TENSORS.items():
    assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name], value)
  with pytest.raises(ValueError, match='exists'):
    weights.write(path, {})
  assert list(path.parent.iterdir()) == [path], 'a temporary file was left'


@pytest.mark.parametrize('nest', [None, 'state_dict', 'model'])
def test_a_torch_file_is_read_with_or_without_its_training_script(tmp_path, nest):
  torch = pytest.importorskip('torch', reason='comes with the extra "interop"')
  tensors = {name: torch.tensor(value) for name, value in TENSORS.items()}
  torch.save({nest: tensors} if nest else tensors, tmp_path / 'w.pt')
  found = weights.read(tmp_path / 'w.pt')
  np.testing.assert_array_equal(found['a.weight'], TENSORS['a.weight'])
  torch.save({'step': 3, **tensors}, tmp_path / 'w.pt')
  with pytest.raises(ValueError, match='step'):
    weights.read(tmp_path / 'w.pt')


def test_code_in_a_torch_file_is_not_run(tmp_path):
  torch = pytest.importorskip('torch', reason='comes with the extra "interop"')
  torch.save({'a': Touch(tmp_path / 'ran')}, tmp_path / 'w.pt')
  with pytest.raises(ValueError, match='weights_only'):
    weights.read(tmp_path / 'w.pt')
  assert not (tmp_path / 'ran').exists()


class Touch:
  """Pickled, it creates a file where it is read."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return type(self.path).touch, (self.path,)


def test_what_cannot_be_read_is_named(tmp_path):
  (tmp_path / 'w.npz').write_bytes(b'no zip')
  for name, words in (
    ('none.npz', 'does not exist'),
    ('w.npz', 'could not be read'),
  ):
    with pytest.raises(ValueError, match=words):
      weights.read(tmp_path / name)
  (tmp_path / 'w.h5').touch()
  with pytest.raises(ValueError, match=r'\.safetensors'):
    weights.read(tmp_path / 'w.h5')
  with pytest.raises(ValueError, match='--out'):
    weights.write(tmp_path / 'w.pt', TENSORS)
