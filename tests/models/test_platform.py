"""Laws of the platform of a program: its mesh's, not this machine's."""

import jax
import jax.numpy as jnp

from ldm_jax.models import platform
from ldm_jax.models.conv import conv
from ldm_jax.training.mesh import make_mesh


def test_it_is_jaxs_default_unless_a_program_is_traced_for_another():
  assert platform.name() == jax.default_backend()
  with platform.tracing_for('tpu'):
    assert platform.name() == 'tpu'
  assert platform.name() == jax.default_backend()


def test_the_mesh_decides_and_an_outer_choice_is_kept():
  ask = platform.of_mesh(make_mesh(1), lambda: platform.name())
  assert ask() == 'cpu'
  with platform.tracing_for('gpu'):
    assert ask() == 'gpu'


def test_a_convolution_is_lowered_for_the_platform_that_it_is_traced_for():
  x, kernel = jnp.ones((1, 4, 4, 4, 2)), jnp.ones((3, 3, 3, 2, 2))
  text = lambda: str(jax.make_jaxpr(lambda x: conv.convolve(x, kernel))(x))
  with platform.tracing_for('gpu'):
    for_gpu = text()
  assert for_gpu != text()
  assert for_gpu.count('conv_general_dilated[') == 1
