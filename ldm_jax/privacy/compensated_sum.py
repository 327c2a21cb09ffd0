"""Sums of many float32 terms that are rounded once, at their end.

A float32 sum of n patients is rounded n times, and where a patient takes it across a
power of two, all later terms are rounded to coarser steps with the patient than
without: one who contributes 1 can move the sum by 2. [Casacuberta22] So a sum is kept
as two numbers, what float32 holds and what was lost by rounding. Each addition finds
its own rounding error exactly [Knuth69]; of n patients of norm C the lost part errs by
at most about n^2 C 2^-48, 1e-6 C for 16,384 of them.

The arithmetic must not be reordered: XLA does not on any platform, unless one sets
--xla_cpu_enable_fast_math.

[Casacuberta22] Casacuberta, Shoemate, Vadhan, Wagaman, Widespread Underestimation of
  Sensitivity in Differentially Private Libraries, CCS 2022, arXiv:2207.10635.
[Knuth69] The Art of Computer Programming, volume 2, 4.2.2, theorem B.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldm_jax.types import Array, PyTree


class Pair(NamedTuple):
  """A sum: `total` is `total + lost` rounded to float32."""

  total: Array
  lost: Array


def zeros(tree: PyTree, zero: Array | float = 0.0) -> PyTree:
  """A tree of Pairs, each 0 and of the shape of a leaf of the tree.

  Args:
    tree: of arrays.
    zero: added to each number: under `shard_map` a zero that varies over the devices.
  """

  def one(leaf):
    # Two arrays: a jitted function can only be given each buffer once.
    return Pair(*(jnp.zeros(leaf.shape, jnp.float32) + zero for _ in range(2)))

  return jax.tree.map(one, tree)


def plus(pair: Pair, term: Array) -> Pair:
  """The sum with one more float32 term of its shape, finite."""
  total = pair.total + term
  part = total - pair.total
  lost = (pair.total - (total - part)) + (term - part) + pair.lost
  # What has been lost may add up to a step of float32.
  whole = total + lost
  return Pair(whole, lost - (whole - total))


def add(sums: PyTree, terms: PyTree) -> PyTree:
  """A tree of Pairs with one more term for each."""
  return jax.tree.map(plus, sums, terms, is_leaf=is_pair)


def rounded(sums: PyTree) -> PyTree:
  """A tree of Pairs as a tree of float32 arrays."""
  return jax.tree.map(lambda pair: pair.total, sums, is_leaf=is_pair)


def is_pair(tree: PyTree) -> bool:
  """Whether this is a Pair, a leaf to those who map over sums."""
  return isinstance(tree, Pair)
