"""The published feature networks against their PyTorch originals, made smaller."""

import jax
import numpy as np
import pytest

from ldm_jax.models.interop import pretrained

RNG = np.random.default_rng(0)


def saved(tmp_path, tensors):
  path = tmp_path / 'weights.npz'
  np.savez(path, **{name: v.numpy() for name, v in tensors.items()})
  return path


def shaken(torch, module):
  """Random norms too, as a trained network has."""
  torch.manual_seed(0)
  for tensor in module.state_dict().values():
    if tensor.dtype == torch.float32 and tensor.ndim == 1:
      tensor.uniform_(0.5, 1.5)
  return module.eval()


def channels_first(torch, x):
  return torch.tensor(np.moveaxis(np.asarray(x), -1, 1))


def close(ours, theirs):
  for f, g in zip(ours, theirs, strict=True):
    g = np.moveaxis(g.detach().numpy(), 1, -1)
    np.testing.assert_allclose(f, g, rtol=1e-4, atol=1e-4 * np.abs(g).max())


def test_vgg16_is_torchvisions(tmp_path):
  torch = pytest.importorskip('torch', reason='the reference needs the extra interop')
  nn, layers, width = torch.nn, [], 3
  for features in (4, 4, 0, 8, 8, 0, *(8,) * 3, 0, *(16,) * 3, 0, *(16,) * 3):
    if features:
      layers += [nn.Conv2d(width, features, 3, padding=1), nn.ReLU()]
      width = features
    else:
      layers.append(nn.MaxPool2d(2, 2))
  network = nn.Sequential(*layers)
  tensors = {f'features.{name}': v for name, v in network.state_dict().items()}
  x = RNG.random((1, 16, 16, 1)).astype(np.float32)
  h = channels_first(torch, np.repeat(x, 3, -1))
  mean, std = (
    torch.tensor(v)[:, None, None]
    for v in (pretrained.IMAGENET_MEAN, pretrained.IMAGENET_STD)
  )
  h, theirs = (h - mean) / std, []
  for layer in network:
    if isinstance(layer, nn.MaxPool2d):
      theirs.append(h)
    h = layer(h)
  features = pretrained.load('vgg16', saved(tmp_path, tensors))
  close(jax.jit(features)(x), [*theirs, h])


def stages(network, h):
  h = network.maxpool(network.act(network.bn1(network.conv1(h))))
  for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
    h = stage(h)
    yield h


@pytest.mark.parametrize('numbered', [False, True])
def test_radimagenet_is_a_resnet50(numbered, tmp_path):
  torch = pytest.importorskip('torch', reason='the reference needs the extra interop')
  nets = pytest.importorskip('monai.networks.nets')
  # The layout of ResNet-50, with fewer blocks and channels.
  network = nets.ResNet(
    'bottleneck',
    [1, 2, 1, 1],
    [8, 8, 16, 16],
    spatial_dims=2,
    n_input_channels=3,
    conv1_t_stride=2,
    bias_downsample=False,
  )
  network = shaken(torch, network)
  tensors = network.state_dict()
  if numbered:
    children = {name: number for number, name in pretrained._NUMBERED.items()}
    tensors = {
      f'backbone.{children[name.partition(".")[0]]}.{name.partition(".")[2]}': v
      for name, v in tensors.items()
      if name.partition('.')[0] in children
    }
  x = RNG.random((1, 32, 32, 1)).astype(np.float32)
  h = np.repeat(x, 3, -1) - np.float32([0.406, 0.456, 0.485])
  theirs = list(stages(network, channels_first(torch, h)))
  features = pretrained.load('radimagenet', saved(tmp_path, tensors))
  close(jax.jit(features)(x), theirs)


@pytest.mark.parametrize(('num_blocks', 'shortcut'), [(1, 'B'), (2, 'A')])
def test_medicalnet_keeps_its_resolution_by_dilated_kernels(
  num_blocks, shortcut, tmp_path
):
  torch = pytest.importorskip('torch', reason='the reference needs the extra interop')
  nets = pytest.importorskip('monai.networks.nets')
  network = nets.ResNet(
    'basic',
    [1, num_blocks, 1, 1],
    [4, 8, 8, 16],
    spatial_dims=3,
    n_input_channels=1,
    shortcut_type=shortcut,
    conv1_t_stride=2,
    bias_downsample=False,
  )
  network = shaken(torch, network)
  for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
    for block in stage:
      for conv in (block.conv1, block.conv2):
        conv.stride, conv.dilation, conv.padding = (
          (n,) * 3 for n in (1, dilation, dilation)
        )
      if isinstance(block.downsample, torch.nn.Sequential):
        block.downsample[0].stride = (1, 1, 1)
      elif block.downsample is not None:
        block.downsample.keywords['stride'] = 1
  tensors = {f'module.{name}': v for name, v in network.state_dict().items()}
  x = RNG.random((1, 16, 24, 16, 1)).astype(np.float32)
  h = (x - x.mean()) / x.std()
  theirs = list(stages(network, channels_first(torch, h)))
  features = pretrained.load('medicalnet', saved(tmp_path, tensors))
  ours = jax.jit(features)(x)
  assert ours[1].shape[1:-1] == ours[3].shape[1:-1] == (2, 3, 2)
  close(ours, theirs)


def test_a_file_of_another_network_is_refused_by_the_names_it_lacks(tmp_path):
  path = tmp_path / 'other.npz'
  np.savez(path, weight=np.ones(3))
  with pytest.raises(ValueError, match=r'features\.0\.weight.*perceptual\.weights'):
    pretrained.load('vgg16', path)
  with pytest.raises(ValueError, match='conv1'):
    pretrained.load('medicalnet', path)
  with pytest.raises(ValueError, match='vgg16, radimagenet'):
    pretrained.load('alexnet', path)
