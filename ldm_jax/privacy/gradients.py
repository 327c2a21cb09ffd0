"""Per-patient clipped gradients: (n patients) -> one float32 tree of bounded reach.

`clipped_sum` is where the sensitivity of private training is decided: whatever the
model, the loss or the data do, one patient changes its result by at most `clip_norm`
(L2 over all trained leaves together). The mechanism's noise is scaled to that number.

Why the bound holds, row by row:
- row i enters only its own gradient, because the loss sees one patient at a time;
- a finite gradient is scaled to norm <= clip_norm, in float32, with a margin that
  outweighs the rounding of the norm (`clipping.py`, which has several rules for it);
- a gradient with a NaN, an infinity, or a norm beyond float32, counts as zero. That
  choice depends on the patient's own data only, and zero is within the bound;
- a padded row (mask False) counts as exactly zero, whatever it holds.

Two methods compute the same sum. 'vmap' differentiates each patient; 'ghost' (see
`ghost.py`) does not form the gradients of layers with few positions and large kernels,
which on a CPU costs less time and memory. 'auto' takes 'ghost' on a CPU unless the fast
paths are turned off (`convolution.fast_paths_are_on`), 'vmap' elsewhere.

More rows than a microbatch run by `scan`, so memory grows with the microbatch, never
with the batch, and masks of any pattern share one compilation. A microbatch of padding
only is skipped. (XLA's convolutions are slow inside a loop on a CPU: there a
microbatch of all rows, 0, is fastest, and fewer rows a call bound the memory.) Under
`shard_map` every device passes its own rows and the caller adds the results (`psum`);
the noise comes after that sum, once. Devices skip independently, so the loss itself
must hold no collective: gather sharded parameters before.

[Abadi16] Abadi et al., Deep Learning with Differential Privacy, CCS 2016, Alg. 1.
"""

import numbers

import jax
import jax.numpy as jnp
import jax_privacy

from ldm_jax.models import convolution
from ldm_jax.privacy import clipping as clipping_rules
from ldm_jax.privacy import ghost
from ldm_jax.privacy.checks import check_clip_norm

METHODS = ('auto', 'vmap', 'ghost')


def clipped_sum(
  loss_fn,
  trained,
  batch,
  mask,
  keys,
  clip_norm,
  microbatch=1,
  method='auto',
  clipping='constant',
  start=None,
):
  """Sums the clipped gradients of the patients that the mask keeps. [Abadi16]

  Args:
    loss_fn: `loss_fn(trained, example, key)` -> scalar loss of ONE patient, all its
      volumes included; `example` is `batch` without its leading axis. Several noise
      draws are averaged inside this function, that is, before the clipping.
    trained: tree of the parameters to differentiate (the frozen ones are closed over
      by loss_fn, and no gradient is computed for them).
    batch: tree of arrays (n, ...), one row per patient.
    mask: (n,) bool, False for padded rows.
    keys: (n,) PRNG keys, one per row.
    clip_norm: C > 0, the largest L2 norm of one patient's contribution.
    microbatch: rows differentiated at once; divides n. 0 for all.
    method: one of METHODS. 'ghost' needs a flat dict {'path/of/parameter': array} for
      trained, as Flax names them; other trees, and layers that do not qualify, take
      ordinary gradients.
    clipping: a rule of `clipping.RULES`; each keeps every contribution within C.
    start: None, or an earlier result that this one is added to.

  Returns:
    A tree like `trained` in float32: sum_i mask_i g_i min(1, C / ||g_i||) by the rule
    'constant'. By 'adaptive' (such a tree, sum of the bits), see `clipping`.

  Raises:
    ValueError: microbatch does not divide n, rows disagree in number, C is not > 0, or
      an unknown method.
  """
  if isinstance(clip_norm, numbers.Real):  # a traced norm is its maker's to check
    check_clip_norm(clip_norm)
  clipping_rules.check(clipping)
  if method not in METHODS:
    raise ValueError(
      f'the method of private gradients is {method!r}; it must be one of '
      f'{", ".join(METHODS)}. Change adapt.privacy.gradients.'
    )
  num_rows = _num_rows(batch, mask, keys)
  microbatch = microbatch or num_rows
  if microbatch < 1 or num_rows % microbatch:
    raise ValueError(
      f'microbatch {microbatch} does not divide the chunk of {num_rows} patients; '
      'choose adapt.privacy.microbatch among the divisors of the chunk size.'
    )

  # A gradient with respect to a parameter that shard_map holds replicated is summed
  # over the devices by jax itself: patients would mix before they are clipped. Adding
  # a zero made from the local mask makes the parameters local. Nothing else changes.
  zero, local = 0.0, trained
  if jax.sharding.get_abstract_mesh().manual_axes:
    zero = 0.0 * jnp.sum(jnp.asarray(mask, jnp.float32))
    local = jax.tree.map(lambda w: w + zero.astype(w.dtype), trained)

  if method == 'auto':
    # 'ghost' was measured on CPUs only.
    is_fast = jax.default_backend() == 'cpu' and convolution.fast_paths_are_on()
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
      for row in range(microbatch):
        t = t + jnp.where(keep[row], g[row].astype(jnp.float32) * scale[row], 0.0)
      return t

    total, sum_of_bits = total
    of_whole, of_factored = _split(total, layers)
    of_whole = jax.tree.map(add, of_whole, gradient, _split(scales, layers)[0])
    for path, layer in layers.items():
      of_factored[path] += ghost.weighted_sum(layer, factors[path], scales[path], keep)
    return of_whole | of_factored if layers else of_whole, sum_of_bits + bits

  def add_unless_padding(total, group):
    return jax.lax.cond(
      jnp.any(group[1]), lambda: add_group(total, group), lambda: total
    ), None

  split = lambda x: x.reshape((num_rows // microbatch, microbatch, *x.shape[1:]))
  groups = jax.tree.map(split, (batch, jnp.asarray(mask, bool), keys))
  if start is None:
    start = (
      jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32) + zero, trained),
      jnp.float32(zero),
    )
  elif clipping != 'adaptive':
    start = start, jnp.float32(zero)
  if num_rows == microbatch:
    total = add_group(start, jax.tree.map(lambda x: x[0], groups))
  else:
    total = jax.lax.scan(add_unless_padding, start, groups)[0]
  return total if clipping == 'adaptive' else total[0]


def reference_clipped_sum(loss_fn, trained, batch, mask, keys, clip_norm):
  """The same sum through `jax_privacy.clipped_grad`, one vmap over all rows.

  Slower and larger than `clipped_sum`, and written by others: the tests compare the
  two. Arguments and result as there. The rows' numbers differ in one case: for a
  gradient that holds a NaN, jax_privacy zeroes the entry and keeps the rest.
  """
  check_clip_norm(clip_norm)
  _num_rows(batch, mask, keys)

  def loss(params, row):
    return loss_fn(params, *row)

  gradient = jax_privacy.clipped_grad(
    loss, l2_clip_norm=clip_norm, keep_batch_dim=False, dtype=jnp.float32
  )
  padding = ~jnp.asarray(mask, bool)
  return gradient(trained, (batch, keys), is_padding_example=padding)


def _squares(leaf):
  return jnp.sum(jnp.square(leaf.astype(jnp.float32)))


def _split(tree, layers):
  """(what has whole gradients, {path: leaf} of the layers with factored ones)."""
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
