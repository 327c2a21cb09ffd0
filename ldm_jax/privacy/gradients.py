"""Per-patient clipped gradients: n patients -> one float32 tree, bounded sensitivity.

`clipped_sum` determines the sensitivity of private training: for any model, loss and
data, one patient changes its result by at most `clip_norm` (L2 over all trained leaves
together). The noise of the mechanism is scaled to that number.

Why the bound holds, row by row:
- row i enters only its own gradient, because the loss sees one patient at a time;
- a finite gradient is scaled to norm <= clip_norm, in float32, with a margin that
  exceeds the rounding errors of the norm and of the sum of 16,384 patients
  (`clipping.py`, which has several rules); the sum is rounded once, not by every
  patient (`compensated_sum`);
- a gradient with a NaN, an infinity, or a norm beyond float32 counts as zero. That
  decision depends on the patient's own data only, and zero is within the bound;
- a padded row (mask False) counts as exactly zero, whatever it contains;
- the loss draws from a threefry key of the row (`prng`), whatever generator the keys
  came from: draws of other generators depend on all rows of a `vmap`.

Two methods compute the same sum. 'vmap' differentiates each patient; 'ghost' (see
`ghost.py`) does not form the gradients of layers with few positions and large kernels,
which takes less time and memory on a CPU. 'auto' takes 'ghost' on a CPU unless the fast
paths are turned off (`conv.fast_paths_are_on`), 'vmap' elsewhere.

If there are more rows than a microbatch, `scan` processes one microbatch at a time:
memory grows with the microbatch, not with the batch, and masks of any pattern share one
compilation. A microbatch of padding only is skipped. (XLA's convolutions are slow
inside a loop on a CPU: there a microbatch of all rows, 0, is fastest, and fewer rows
per call limit the memory.) Under `shard_map` every device passes its own rows and the
caller adds the results (`psum`); the noise is added once, after that sum. Devices skip
microbatches independently, so the loss must not contain a collective: gather sharded
parameters before.

[Abadi16] Abadi et al., Deep Learning with Differential Privacy, CCS 2016, Alg. 1.
"""

import functools
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax_privacy

from ldm_jax import prng
from ldm_jax.models import platform
from ldm_jax.models.conv import conv
from ldm_jax.privacy import clipping as clipping_rules
from ldm_jax.privacy import compensated_sum, ghost
from ldm_jax.privacy.checks import check_clip_norm
from ldm_jax.types import Array, PyTree

METHODS = ('auto', 'vmap', 'ghost')
# Rows that are added in float32 before they join the sum. So few take one row's
# contribution at most ROWS^2 2^-23 = 3e-5 of the clip norm too far.
ROWS = 16


def clipped_sum(
  loss_fn: Callable[..., jax.Array],
  trained: PyTree,
  batch: PyTree,
  mask: Array,
  keys: jax.Array,
  clip_norm: float | jax.Array,
  microbatch: int = 1,
  method: str = 'auto',
  clipping: str = 'constant',
  start: PyTree | None = None,
) -> PyTree:
  """Sums the clipped gradients of the patients that the mask keeps. [Abadi16]

  Args:
    loss_fn: `loss_fn(trained, example, key)` -> scalar loss of ONE patient, including
      all volumes; `example` is `batch` without its leading axis. Several noise draws
      are averaged inside this function, that is, before clipping.
    trained: tree of the parameters to differentiate (loss_fn closes over the frozen
      ones, for which no gradient is computed).
    batch: tree of arrays (n, ...), one row per patient.
    mask: (n,) bool, False for padded rows.
    keys: (n,) PRNG keys, one per row; the loss gets them as threefry keys.
    clip_norm: > 0, the largest L2 norm of one patient's contribution.
    microbatch: rows differentiated at once; divides n. 0 for all.
    method: one of METHODS. 'ghost' needs a flat dict {'path/of/parameter': array} for
      trained, as Flax names them; other trees, and layers that do not qualify, use
      ordinary gradients.
    clipping: a rule of `clipping.RULES`; each limits every contribution to clip_norm.
    start: None, or a tree of `compensated_sum` to which this one is added.

  Returns: a tree of `compensated_sum` if `start` is given, otherwise the sum, rounded.
    A tree like `trained` in float32, with the rule 'constant' it is
    sum_i mask_i g_i min(1, C / ||g_i||) with C = (1 - clipping.MARGIN) clip_norm. With
    'adaptive': (such a tree, sum of the bits), see `clipping`.

  Raises:
    ValueError: microbatch does not divide n, numbers of rows differ, clip_norm is not
      > 0, or the method is unknown.
  """
  if isinstance(clip_norm, numbers.Real):  # the caller checks a traced norm
    check_clip_norm(clip_norm)
  clipping_rules.check(clipping)
  if method not in METHODS:
    raise ValueError(
      f'the method of private gradients is {method!r}; it must be one of '
      f'{", ".join(METHODS)}. Change adapt.privacy.gradients.'
    )
  keys = prng.threefry(keys)
  num_rows = _num_rows(batch, mask, keys)
  microbatch = microbatch or num_rows
  if microbatch < 1 or num_rows % microbatch:
    raise ValueError(
      f'microbatch {microbatch} does not divide the chunk of {num_rows} patients; '
      'choose adapt.privacy.microbatch among the divisors of the chunk size.'
    )

  # jax sums a gradient with respect to a parameter that shard_map replicates over the
  # devices, so patients would be added before they are clipped. Adding a zero computed
  # from the local mask makes the parameters local and changes nothing else.
  zero: Array = 0.0
  local = trained
  if jax.sharding.get_abstract_mesh().manual_axes:
    zero = 0.0 * jnp.sum(jnp.asarray(mask, jnp.float32))
    local = jax.tree.map(lambda w: w + zero.astype(w.dtype), trained)

  if method == 'auto':
    # 'ghost' was measured on CPUs only.
    is_fast = platform.name() == 'cpu' and conv.fast_paths_are_on()
    method = 'ghost' if is_fast else 'vmap'
  layers = {}
  if method == 'ghost':
    layers = ghost.find(loss_fn, trained, *jax.tree.map(lambda x: x[0], (batch, keys)))
  whole, factored = _split(local, layers)

  def gradients(example, key):
    if not layers:
      return jax.grad(loss_fn)(local, example, key), {}
    return ghost.gradient_and_factors(loss_fn, layers, factored, whole, example, key)

  def add_group(total, group):
    examples, keep, keys = group
    gradient, factors = jax.vmap(gradients)(examples, keys)
    squares = jax.tree.map(jax.vmap(_squares), gradient)
    if layers:
      squares |= {p: ghost.squared_norms(n, factors[p]) for p, n in layers.items()}
    scales, bits, keep = clipping_rules.scales(squares, clip_norm, keep, clipping)

    def add(t, g, scale):  # row by row: a reduction over rows is slow on a CPU
      row_of = lambda row: jnp.where(
        keep[row], g[row].astype(jnp.float32) * scale[row], 0.0
      )
      for first in range(0, microbatch, ROWS):
        rows = range(first, min(first + ROWS, microbatch))
        t = compensated_sum.plus(t, functools.reduce(jnp.add, map(row_of, rows)))
      return t

    total, sum_of_bits = total
    of_whole, of_factored = _split(total, layers)
    of_whole = jax.tree.map(add, of_whole, gradient, _split(scales, layers)[0])
    for path, layer in layers.items():
      term = ghost.weighted_sum(layer, factors[path], scales[path], keep)
      of_factored[path] = compensated_sum.plus(of_factored[path], term)
    total = of_whole | of_factored if layers else of_whole
    return total, compensated_sum.plus(sum_of_bits, bits)

  def add_unless_padding(total, group):
    return jax.lax.cond(
      jnp.any(group[1]), lambda: add_group(total, group), lambda: total
    ), None

  split = lambda x: x.reshape((num_rows // microbatch, microbatch, *x.shape[1:]))
  groups = jax.tree.map(split, (batch, jnp.asarray(mask, bool), keys))
  begin = start
  no_bits = compensated_sum.zeros(jnp.zeros(()), zero)
  if start is None:
    begin = compensated_sum.zeros(trained, zero), no_bits
  elif clipping != 'adaptive':
    begin = start, no_bits
  if num_rows == microbatch:
    total = add_group(begin, jax.tree.map(lambda x: x[0], groups))
  else:
    total = jax.lax.scan(add_unless_padding, begin, groups)[0]
  total = total if clipping == 'adaptive' else total[0]
  return compensated_sum.rounded(total) if start is None else total


def reference_clipped_sum(
  loss_fn: Callable[..., jax.Array],
  trained: PyTree,
  batch: PyTree,
  mask: Array,
  keys: jax.Array,
  clip_norm: float,
) -> PyTree:
  """The same sum by `jax_privacy.clipped_grad`, one vmap over all rows.

  An independent implementation for tests of `clipped_sum`; slower, and needs more
  memory. Arguments and result as there. The results differ in one case: where a
  gradient has a NaN, jax_privacy sets that entry to zero and keeps the others.
  """
  check_clip_norm(clip_norm)
  keys = prng.threefry(keys)
  _num_rows(batch, mask, keys)

  def loss(params, row):
    return loss_fn(params, *row)

  bound = (1 - clipping_rules.MARGIN) * clip_norm
  gradient = jax_privacy.clipped_grad(
    loss, l2_clip_norm=bound, keep_batch_dim=False, dtype=jnp.float32
  )
  padding = ~jnp.asarray(mask, bool)
  return gradient(trained, (batch, keys), is_padding_example=padding)


def _squares(leaf):
  return jnp.sum(jnp.square(leaf.astype(jnp.float32)))


def _split(tree, layers):
  """(leaves with whole gradients, {path: leaf} of the layers with factored ones)."""
  if not layers:
    return tree, {}
  whole = {path: leaf for path, leaf in tree.items() if path not in layers}
  return whole, {path: tree[path] for path in layers}


def _num_rows(batch, mask, keys):
  sizes = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves((batch, mask, keys))}
  if len(sizes) != 1:
    raise ValueError(
      f'batch, mask and keys hold {sorted(sizes)} rows; each needs one row per '
      'patient of the chunk.'
    )
  return sizes.pop()
