"""The default value of every config key, and why it was chosen. Knows no other room."""

from ml_collections import ConfigDict

from ldm_jax.config import adapt, autoencoder, counterfactual


def defaults():
  """ConfigDict with every key; `configs/*.py` change what their data need."""
  return ConfigDict(
    {
      'name': '',
      # Determines initialisation, data order and sampling noise; never the noise
      # that protects patients.
      'seed': 0,
      'data': {
        # Patients whose scans may be used freely; trains the autoencoder, the
        # latent statistics, the pre-trained denoiser and the measuring network.
        'public': _cohort('public'),
        # Patients whom the privacy statement protects.
        'private': _cohort('private'),
        # Held-out patients for internal evaluation; train nothing.
        'test': _cohort('test'),
        # Public, labelled: the measuring network learns from these instead, where the
        # public scans have no labels or show other people than the private ones.
        'measuring': _cohort('measuring'),
        # Patient-wise shares, used by sections that name a `part` of one root.
        'split': {'public': 0.4, 'private': 0.4, 'test': 0.2},
        'split_seed': 0,
        # Attributes: () means the layout's own schema.
        'schema': (),
        'preprocess': {
          'shape': (12, 48, 48),
          # mm per axis (slices, rows, columns); None keeps the file's own spacing.
          'spacing_mm': (None, None, None),
          'percentiles': (0.5, 99.5),
          'foreground': True,
          'centre': 'grid',
          # The heuristic (data/preprocessing/centring.py) of scans without labels under
          # 'label'.
          'centre_without_label': 'mass',
          # One gain a slice evens out exports whose slices were scaled one by one. Off:
          # it also takes true differences between slices.
          'harmonise_slices': False,
        },
        # prepare fails when more than this share of the files cannot be read.
        'max_bad_fraction': 0.001,
      },
      # Random motion and contrast of public volumes, for cohorts of few patients; with
      # no copies nothing is transformed.
      'augment': {
        # Transformed copies of each volume for pre-training; the autoencoder draws anew
        # at every step.
        'copies': 0,
        # Largest translation in voxels, and rotation about each axis (d, h, w).
        'shift': (0, 0, 0),
        'rotation_deg': (0, 0, 0),
        # Intensities become x**exp(u), u uniform up to this.
        'gamma': 0.0,
      },
      'autoencoder': autoencoder.section(),
      'encode': {
        # True keeps the posterior's log variance beside its mean, and pre-training
        # draws its latents anew at every step; the mean alone is enough where the
        # deviations are small (kl_weight near 0), and halves the store.
        'logvar': False,
        # What latents are divided by: the deviation of each 'channel', or for the whole
        # 'latent' the largest of them, which leaves fine bands of a wavelet small.
        'std': 'channel',
      },
      'diffusion': {
        'schedule': {
          'name': 'linear',
          'num_timesteps': 150,
          'beta_start': 1e-4,
          'beta_end': 7e-2,
          # True lets training see the pure noise that sampling starts from (Lin 2024);
          # needs a prediction other than epsilon.
          'zero_terminal_snr': False,
          # Of 'flow': above 1 spends more times near the noise (Esser 2024).
          'shift': 1.0,
        },
        # 'flow' goes with the schedule 'flow', 'v' with all others.
        'prediction': 'v',
        # Weight min(snr, gamma) of the clean latent's error (Hang 2023, gamma 5). None
        # leaves every time's error of the prediction alone.
        'min_snr_gamma': None,
        'times': adapt.times('uniform'),
        'model': {
          # 'unet'; 'dit', a transformer over patches with the options of `dit`; or
          # 'daum24', the UNet of the paper.
          'kind': 'unet',
          # Few channels where there are many voxels: on a CPU the finest level costs
          # as much as the others together.
          'channels': (16, 32, 48),
          'num_res_blocks': 1,
          # The coarsest level is cheap enough to make neighbouring slices agree.
          'kernels': ((1, 3, 3), (1, 3, 3), (3, 3, 3)),
          'strides': ((1, 2, 2), (1, 2, 2)),
          # 'volume': all voxels at once; 'depth': within slices, then along depth, for
          # grids too large for the first or slices too thick.
          'attention': 'volume',
          # The middle block attends in any case.
          'attention_levels': (False, False, False),
          'num_head_channels': 16,
          # None: as many heads as fill the channels.
          'num_heads': None,
          'norm_groups': 8,
          # Resample inside residual blocks instead of by convolutions.
          'resblock_updown': False,
          'dit': {
            # Voxels of a token; a patch of one slice leaves thick slices apart.
            'patch': (1, 2, 2),
            'width': 128,
            'num_blocks': 4,
            'num_head_channels': 32,
            'mlp_factor': 4,
          },
          # True computes each block again backwards: a third more work, less memory on
          # GPU and TPU (none is saved on CPU).
          'remat': False,
          # Of products; 'bfloat16' pays on accelerators. Parameters, norms and softmax
          # stay float32.
          'dtype': 'float32',
        },
        'conditioner': {
          'width': 16,
          'num_heads': 4,
          # None: width / num_heads.
          'head_dim': None,
          # Sines and cosines of each value beside the value: 0 is the paper's.
          'num_frequencies': 3,
          # True: one learned token for whatever is missing, one for what is dropped.
          'shared_absent': False,
          # Tokens for attention, an embedding beside that of the time, and 'channels'
          # beside the latent (Pinaya 2022); any of them together.
          'by': ('attention', 'embedding'),
        },
        'text': {
          # Token embeddings of any text encoder: 'text/{patient}.npy' or '{id}.npz',
          # see data/store/text_embeddings.py. '' for no text.
          'files': '',
          # Room for tokens and their width: CLIP's, as in Stable Diffusion 1.
          'num_tokens': 77,
          'width': 768,
          # Share of examples trained with attributes only, so that requests without
          # text are understood.
          'missing_probability': 0.1,
        },
        # Share of examples trained without condition, for classifier-free guidance.
        'drop_probability': 0.1,
        'steps': 1000,
        'batch_size': 16,
        'learning_rate': 1e-3,
        'ema_decay': 0.99,
        # Folder of a UNet by `ldm-jax-convert`: its options replace `model`, its
        # weights are where training starts. '' for random ones.
        'init': '',
      },
      'adapt': adapt.section(),
      'sample': {
        'num': 32,
        # Another number draws other samples of the same model.
        'seed': 0,
        # One of adapt.ema_decay; None for the first of them.
        'ema_decay': None,
        'steps': 50,
        'solver': 'ddim',
        'eta': 0.0,
        # 'trailing' divides the time evenly, as a flow or a zero terminal SNR wants.
        'spacing': 'linspace',
        'guidance': 1.0,
        'batch_size': 16,
        # Latent voxels per axis decoded at once, where a whole volume does not fit the
        # device; () decodes whole. Tiles overlap and are blended.
        'decode_tile': (),
        'decode_overlap': 4,
        # 'uniform': within the schema's ranges, people who do not exist; 'population':
        # the layout's documented population; 'private_prior': drawn from
        # adapt.privacy.releases.attributes, which is best where a budget allows it;
        # 'public': rows of real public patients, which samples.csv then shows; or a
        # table with one column per attribute.
        'requests': 'uniform',
        # 'adapt', or 'diffusion' to look at the public model.
        'model': 'adapt',
        # File of token embeddings that all samples are given; '' for none.
        'text': '',
        # Attributes that the report varies one at a time.
        'sweep': (),
      },
      'counterfactual': counterfactual.section(),
      'evaluate': {
        'segmenter': {
          'channels': (8, 16, 32),
          'kernels': ((1, 3, 3), (1, 3, 3), (1, 3, 3)),
          'strides': ((1, 2, 2), (1, 2, 2)),
          'norm_groups': 8,
          'steps': 300,
          'batch_size': 8,
          'learning_rate': 3e-3,
        },
        # Label values of the data set, in the order of the segmenter's classes.
        'labels': (0, 1),
        # What is measured on a volume and which requested attribute it answers.
        'measures': (),
        # Figures to compute: some of 'distances' (always there), 'ms_ssim',
        # 'reconstruction', 'memorisation', 'control', 'causal'; () for all. The arms
        # of a sweep need few.
        'only': (),
        'num_bootstrap': 200,
      },
      # --stages=audit: attacks on the private step, tried on public patients.
      'audit': {
        # Half of them take part; each costs a patient's gradient at every second step.
        'num_canaries': 64,
        # Steps that draw everybody; there are twice as many in all.
        'participations': 4,
        # Chance that all its bounds are true.
        'confidence': 0.95,
      },
      # What the private patients have spent. A section of its own: moving the ledger or
      # raising the total must not train anything again.
      'ledger': {
        # A file that several work folders share, when they use the same patients; ''
        # is store/ledger-private.jsonl of the work folder.
        'path': '',
        # The most epsilon, at adapt.privacy.delta, of all releases in the ledger; None
        # makes adapt.privacy.epsilon that total.
        'total_epsilon': None,
        # True counts on in a ledger of other patients: needed where two cohorts share
        # some, and never less than the truth.
        'any_cohort': False,
      },
      'mesh': {
        # -1: all devices. fsdp > 1 shards parameters and optimiser state at rest.
        'data': -1,
        'fsdp': 1,
      },
      'doctor': {
        # Scans read of a cohort, evenly chosen: minutes where all of them take hours. 0
        # reads all. The table is always seen whole.
        'max_records': 1000,
        # Of the box that is proposed; 0 takes as many as preprocess.shape has.
        'max_voxels': 0,
        # The arguments of the command line that is examined, filled in by it.
        'command': (),
      },
      'run': {
        'log_every': 20,
        'checkpoint_every': 100,
        # Threads of prepare; 0 is two per core.
        'workers': 0,
      },
    }
  )


def _cohort(part):
  return {
    # '' leaves the cohort empty.
    'layout': '',
    'root': '',
    # The share of data.split to take; '' takes every patient.
    'part': part,
    # Keyword arguments of the layout: table, columns, phantom size and site.
    'options': {},
  }
