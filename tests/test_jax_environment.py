"""What `ldm-jax` sets before jax is imported."""

import os
import subprocess
import sys

import pytest

from ldm_jax import jax_environment

# Prints how many pages the last ten of many calls have to ask for. Each result takes 64
# MB, which calls before have freed; aligned blocks fit one another after some calls.
CALLS = """
from ldm_jax import jax_environment
jax_environment.set_up_jax()
import resource
import jax
import jax.numpy as jnp
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**24)
for call in range(40):
  if call == 30:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  double(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(script, **environment):
  """Another process, since what is set in this one would stay for all its tests."""
  return subprocess.run(
    [sys.executable, '-c', script],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', **environment},
    capture_output=True,
    text=True,
    check=True,
  )


def test_a_step_takes_the_memory_of_the_step_before():
  ask = 'from ldm_jax import jax_environment; print(jax_environment.keep_memory())'
  if run(ask, LDM_JAX_KEEP_MEMORY='1').stdout != 'True\n':
    pytest.skip('another C library than glibc, or an accelerator')
  kept = int(run(CALLS, LDM_JAX_KEEP_MEMORY='1').stdout)
  given_back = int(run(CALLS, LDM_JAX_KEEP_MEMORY='0').stdout)
  # A huge page, where the system gives them unasked, is one fault for 2 MB.
  assert kept < 160 <= given_back


def test_memory_is_left_alone_where_that_is_asked_for(monkeypatch):
  monkeypatch.setenv('LDM_JAX_KEEP_MEMORY', '0')
  assert not jax_environment.keep_memory()
