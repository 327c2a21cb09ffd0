"""The default values of `adapt`, and why each was chosen."""


def section():
  """The keys of `adapt`: method, training, privacy."""
  return {
    # Which parameters move, which are new, which loss is added: docs/adaptation.md.
    'method': 'full',
    'lora': {
      # Numbers in an adapter grow with the rank; few carry what a fine-tuning
      # changes (Hu 2021), and few gather little privacy noise.
      'rank': 4,
      # The adapters' product is scaled by alpha / rank.
      'alpha': 4.0,
      # Regular expressions over paths of layers: linear or convolution.
      'targets': (r'/to_[qkv]$', r'/out_proj$'),
    },
    # New tokens of 'textual_inversion', 'dreambooth' and 'custom_diffusion'.
    'tokens': {
      # One word is what the papers give a subject.
      'num': 1,
    },
    # Samples of the pre-trained model whose loss is added, so that it is not forgotten.
    'prior': {
      # None is the method's own: 1 for 'dreambooth' (Ruiz 2023), 0 for all others.
      'weight': None,
      # Distinct class samples: as many as a cohort has patients, about.
      'num': 100,
      # 'generated' by the pre-trained model, or latents of the 'public' cohort.
      'source': 'generated',
      # As in `sample`, by DDIM.
      'steps': 50,
      'guidance': 1.0,
      'batch_size': 16,
    },
    # 'scratch' ignores the public pre-training: the ablation of Daum 2024.
    'init': 'diffusion',
    'drift': drift(),
    # '' draws times as pre-training does.
    'times': times(''),
    'steps': 100,
    # 'adam', or 'sgd' (plain descent).
    'optimizer': 'adam',
    'learning_rate': 2e-4,
    # 'constant', or 'cosine': a short warm-up, then down to a twentieth. For long runs.
    'schedule': 'constant',
    # One average of the parameters for each decay, at no cost in privacy: the
    # first is what `sample` takes unless sample.ema_decay names another.
    'ema_decay': (0.9,),
    # Patients a step without privacy.
    'batch_size': 16,
    # Of a patient's volumes (or pairs) those that a step sees, drawn anew each time; 0
    # for all. A step's cost grows with them, and they resemble each other.
    'examples_per_patient': 0,
    # Another number repeats this stage alone with other draws, as `seed` would
    # all of them.
    'seed': 0,
    # Transformed copies of each volume of a patient, averaged with the volume
    # before anything is clipped. Only what leaves the attributes true belongs
    # here: no rotation where an attribute is an angle.
    'augment': {
      # Versions of a volume, itself included (De 2022).
      'multiplicity': 1,
      # As in the section `augment`.
      'shift': (0, 1, 1),
      'rotation_deg': (0, 0, 0),
      'gamma': 0.1,
    },
    'pairs': pairs(),
    'privacy': privacy(),
  }


def pairs():
  """The keys of `adapt.pairs`: from an earlier scan of a patient to a later one."""
  return {
    # True: examples are pairs of visits of one patient, and the network sees the
    # earlier scan's latent as further input channels (Brooks 2023).
    'use': False,
    # Years between the two; None for no limit.
    'min_years': 0.0,
    'max_years': None,
    # True pairs each visit with the next one alone; all pairs teach longer gaps.
    'adjacent': False,
    # True also teaches the way back, which nothing can follow but the ageing of the
    # cohort; without it an editor refuses to make anyone younger.
    'both_directions': False,
    # How the network is told of the years: 'number', 'bin' (below 5, up to 10, above)
    # or 'none'.
    'gap': 'number',
    # None: the network learns the later scan. A number: it learns the change to it, in
    # this unit, so that nothing need be copied from the source. About the deviation of
    # (later - earlier), in deviations of the latents; a choice from public pairs or
    # from elsewhere, never from the private cohort.
    'change_scale': None,
    # Patients without any pair train with their scans, each without a source.
    'singles': True,
    # Shares of examples without condition, without source, without both; they replace
    # diffusion.drop_probability (Brooks 2023).
    'drop_condition': 0.05,
    'drop_source': 0.05,
    'drop_both': 0.05,
  }


def drift():
  """The keys of `adapt.drift`: see diffusion/drift.py and docs/drift.md."""
  return {
    # The shift of the noise (delta): a number, or one a channel. 0 is no drift; 0.1
    # is what Yeganeh 2025 takes most often.
    'value': 0.0,
    # How the paper is read: 'prior', 'posterior_constant', 'init_only'.
    'variant': 'prior',
    # What the network learns to predict: 'shifted' noise or the 'raw' noise before.
    'target': 'shifted',
    # Offset noise, the baseline of drifting: each training example is shifted by a
    # random amount of this deviation per channel, sampling by none.
    'random_std': 0.0,
    # Where it drifts: both, or training alone, or sampling alone.
    'training': True,
    'sampling': True,
    # How `adapt` finds the value by itself; '' takes `value`. 'grid', 'closed_form'
    # and 'loss' look at the target as it is; 'private_mean' and 'private_loss' are
    # releases in the ledger and all that adapt.privacy allows.
    'search': '',
    # What 'grid', 'loss' and 'private_loss' try: the values of Yeganeh 2025.
    'grid': (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2),
    # Latents that the pre-trained model generates, for each value of the grid.
    'num_samples': 64,
    # Steps of plain fine-tuning before 'grid' samples, where the drift is trained with:
    # enough to see where training starts to go. 0 looks at the start itself.
    'trial_steps': 16,
    # Draws of (t, noise) a volume for the denoising loss, the same for every value.
    'num_draws': 16,
    # Epsilon of a private search alone, at adapt.privacy.delta; training has what
    # remains. A drift is few numbers and needs little.
    'epsilon': 0.5,
    # L2 norm that a patient's part is clipped to, in units of what nine of ten public
    # patients stay below. None: 2 for 'private_mean', since private patients lie
    # further from the public mean, 1 for 'private_loss'.
    'clip_norm': None,
  }


def privacy():
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
    # 'constant'; 'normalised' gives every patient's gradient the norm clip_norm;
    # 'per_layer' clips each array by itself; 'adaptive' lets clip_norm follow this
    # quantile of the norms. See privacy/clipping.py.
    'clipping': 'constant',
    'quantile': 0.5,
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


def times(density):
  """The keys of `diffusion.times` and `adapt.times`."""
  return {
    # How often a training step draws each time: 'uniform', 'logit_normal' (Esser
    # 2024), 'beta' (with b = 1 a power), 'piecewise', or 'private', the pieces of
    # Ghalebikesabi 2023 for private training. x = 0 is clean, x = 1 noise.
    'density': density,
    'logit_mean': 0.0,
    'logit_std': 1.0,
    'beta': (1.0, 1.0),
    # (from, to, share) in x; ((0.0, 0.03, 0.05), (0.03, 0.8, 0.9), (0.8, 1.0, 0.05)).
    'pieces': (),
    # True divides each loss by its time's probability: the objective stays uniform,
    # only its variance changes. False lets the density weigh the times.
    'importance': False,
  }
