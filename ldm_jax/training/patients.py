"""Patients as arrays: (p,v,...), the unit that a private step draws and clips."""

import hashlib
from collections.abc import Iterable

import numpy as np

from ldm_jax.data.store.split import Split
from ldm_jax.training.pair_examples import Examples


def patient_arrays(
  split: Split | Examples, latents: np.ndarray, conditions: np.ndarray | None = None
) -> dict[str, np.ndarray]:
  """Entries -> patients: {'z' (p,m,...,c), 'attributes' (p,m,k), 'present' (p,m)}.

  Args:
    split: with `patient_entries` and `attributes` (n,k).
    latents: (v n,...,c), v versions of the n entries, one after the other. All versions
      of a patient's entries become rows of this patient.
    conditions: (n,k) of the entries; None for the attributes of the split.

  Returns:
    Arrays in which m is the largest number of volumes of a patient. Missing rows have z
    zero, attributes NaN and present False.
  """
  groups = split.patient_entries
  conditions = split.attributes if conditions is None else conditions
  count = len(conditions)
  first = np.arange(0, len(latents), count)[:, None]
  volumes = len(first) * max(map(len, groups))
  arrays = {
    'z': np.zeros((len(groups), volumes, *latents.shape[1:]), np.float32),
    'attributes': np.full(
      (len(groups), volumes, conditions.shape[1]), np.nan, np.float32
    ),
    'present': np.zeros((len(groups), volumes), bool),
  }
  for patient, entries in enumerate(groups):
    versions = (first + np.asarray(entries)).ravel()
    arrays['z'][patient, : len(versions)] = latents[versions]
    arrays['attributes'][patient, : len(versions)] = conditions[versions % count]
    arrays['present'][patient, : len(versions)] = True
  return arrays


def numbers(names: Iterable[str]) -> np.ndarray:
  """A number (p,) uint32 for each patient, computed from the name alone.

  The random draws of a patient's loss (times, noise, drops) follow from this number,
  the step and a public key. If they followed from the position in the cohort, adding or
  removing a patient would change the draws of all later ones, and the sum would change
  by more than one contribution.
  """
  words = [hashlib.sha256(str(name).encode()).digest() for name in names]
  return np.array([int.from_bytes(word[:4]) for word in words], np.uint32)
