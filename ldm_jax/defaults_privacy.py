"""The default values of `adapt.privacy`, and why each was chosen."""


def section():
  """The keys of `adapt.privacy`: budget, mechanism, clipping, other releases."""
  return {
    # Of all releases on these patients together, or of this run alone where
    # ledger.total_epsilon bounds the total.
    'epsilon': 10.0,
    'delta': 1e-5,
    # 'poisson'; 'truncated_poisson' keeps at most max_batch_size patients of a
    # draw; 'banded' correlates the noise of num_bands steps; 'full_batch' takes
    # every patient in every step, whatever batch_size. See docs/privacy.md.
    'mechanism': 'poisson',
    'max_batch_size': None,
    'num_bands': 1,
    'clip_norm': 1.0,
    # Divides the private mean gradient by clip_norm, after the noise, so that the
    # learning rate need not follow it (De 2022).
    'normalize': True,
    # Expected patients a step; each is drawn with probability
    # batch_size / num_patients.
    'batch_size': 32,
    # Draws of (t, noise) a patient, averaged before clipping (DPDM 2023).
    'noise_multiplicity': 1,
    # Patients a compiled call; any drawn batch is a number of these.
    'chunk_size': 16,
    # Of a chunk, patients differentiated at once; 0 for all, which a CPU needs.
    'microbatch': 0,
    # How: 'ghost' forms no gradient per patient of a coarse layer, 'vmap' forms all,
    # 'auto' takes what is faster. The numbers are the same.
    'gradients': 'auto',
    'log_internal': False,
    # What else is published of the private cohort, within the same epsilon.
    'releases': {
      # Histograms of the attributes, for sample.requests='private_prior'.
      'attributes': {
        # Epsilon of this release alone, at adapt.privacy.delta; training has what
        # remains. None releases nothing. Histograms need little beside images.
        'epsilon': None,
        # Bins of a continuous attribute: more bins, more noise in each share.
        'num_bins': 8,
        # ((parent, child), ...): the child is drawn given its parent. Without
        # pairs the attributes are drawn independently.
        'pairs': (),
      },
    },
    # None: noise key from the operating system. A number makes the noise
    # predictable: for demonstrations only, and the statement says so.
    'seed': None,
  }
