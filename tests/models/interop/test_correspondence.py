"""Laws of the correspondence: weights that do not belong to a config are listed."""

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from ldm_jax.models.interop import correspondence, reference_monai
from tests.models.interop.parity import UNET


def zeros(reference):
  """Parameters and tensors of the right names and shapes, without the reference."""
  nested = unflatten_dict(
    {path: np.zeros(shape) for path, shape in reference.shapes().items()}
  )
  return nested, correspondence.to_theirs(reference, nested)


def test_weights_that_do_not_fit_are_listed():
  reference = reference_monai.unet(UNET)
  _, tensors = zeros(reference)
  del tensors['out.0.weight']
  tensors['conv_in.conv.weight'] = np.zeros((4, 3, 3, 3, 3))
  tensors['extra'] = np.zeros(1)
  with pytest.raises(ValueError) as error:
    correspondence.to_ours(reference, tensors)
  for part in ('unknown: extra', 'missing: out.0.weight', '(4, 3, 3, 3, 3)'):
    assert part in str(error.value)


def test_parameters_that_do_not_fit_are_listed():
  reference = reference_monai.unet(UNET)
  nested, _ = zeros(reference)
  nested['extra'] = {'bias': np.zeros(1)}
  del nested['conv_in']['bias']
  with pytest.raises(ValueError, match=r'extra/bias.*conv_in/bias'):
    correspondence.to_theirs(reference, nested)
