"""Laws of the strategies of correlated noise: sensitivity one, and less error."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax_privacy.matrix_factorization import sensitivity

from ldm_jax.privacy import banded_matrix

STRATEGY = (0.8, 0.48, 0.36)


@pytest.mark.parametrize('coefficients', [(1.0,), (0.8, 0.6), STRATEGY])
@pytest.mark.parametrize('steps', [3, 8])
def test_a_strategy_moves_by_one_for_a_patient_of_every_bth_step(coefficients, steps):
  banded_matrix.check(coefficients, steps)
  found = banded_matrix.matrix(coefficients, steps)
  np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-12)
  bands = len(coefficients)
  for first in range(bands):  # steps of one patient: blocks without a common row
    columns = found[:, first::bands] != 0
    assert columns.sum(axis=1).max() <= 1
  one = sensitivity.get_sensitivity_banded(jnp.asarray(found), bands, 1)
  assert one == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
  ('coefficients', 'words'),
  [
    ((0.0, 1.0), 'inverse'),
    ((1.0, float('nan')), 'finite'),
    ((0.5,) * 9, 'finite'),
    ((), 'finite'),
  ],
)
def test_a_strategy_that_is_none_is_refused(coefficients, words):
  with pytest.raises(ValueError, match=words):
    banded_matrix.check(coefficients, 8)


def test_the_check_finds_columns_that_are_too_long(monkeypatch):
  longer = banded_matrix.matrix
  monkeypatch.setattr(banded_matrix, 'matrix', lambda *a: 1.001 * longer(*a))
  with pytest.raises(ValueError, match=r'norms 1\.001'):
    banded_matrix.check(STRATEGY, 8)


def test_the_best_strategy_errs_less_than_independent_noise():
  found = banded_matrix.optimal(12, 3)
  assert np.sum(np.square(found)) == pytest.approx(1, abs=1e-12)
  banded_matrix.check(found, 12)
  errors = [banded_matrix.mean_error(c, 12) for c in (found, STRATEGY, (1.0,))]
  assert errors[0] < errors[2] and errors[0] <= errors[1] * 1.01
  assert banded_matrix.mean_error((1.0,), 12) == pytest.approx(np.sqrt(6.5))
  assert banded_matrix.optimal(12, 1) == (1.0,)
  with pytest.raises(ValueError, match=r'adapt\.privacy\.num_bands'):
    banded_matrix.optimal(3, 4)
