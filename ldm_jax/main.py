"""The command line: `ldm-jax --config=CONFIG[:ARGS] --workdir=W [--config.x.y=value]`.

CONFIG is a name ({names}),
a Python file like configs/cardiac.py, or the config.json of a work folder. ARGS are a
preset (tiny, small or full) and what the config takes, as in
--config=folder:tiny,root=SCANS,public=none. Any key is set by a flag:
--config.sample.num=200 (--print_config lists all keys).

Stages, in this order; all but the last four run when --stages is not given:

  prepare         files -> preprocessed volumes in the store, patient by patient
  autoencoder     volumes <-> latents, learned from public scans
  encode          volumes -> latents in the store
  diffusion       the conditional denoiser, learned from public latents
  adapt           fine-tuning on the private cohort, under differential privacy
  sample          requested attributes -> synthetic volumes, NIfTI and a table
  counterfactual  a scan with other attributes
  evaluate        metrics.json: quality, control, memorisation, with intervals
  report          report/index.html and the model card
  export          shareable.zip: model, samples, statement, checked before it leaves
  doctor          looks at data and config; trains nothing
  record          writes the release of adapt into the ledger; trains nothing
  audit           attacks the private step among public patients; spends nothing

A stage whose inputs and config have not changed is not run again; one that was stopped
goes on. Exit status: 0 done, 1 a stage failed, 2 bad config, data or flags, 130 Ctrl-C,
143 SIGTERM, 75 another process of the run was lost or did not come; after the last two,
the same command goes on. A command may run as many processes (docs/clusters.md).
Launch scripts and configs are in {folder}.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import ldm_jax
from ldm_jax import cluster, processes
from ldm_jax.jax_environment import set_up_jax

LONGEST = 1900  # characters of an error
ADVICE = 'Free some space or choose another --workdir'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the stages the flags ask for.

  Returns:
    Exit status: 0 done, 1 a stage failed, 2 bad config, data or flags; 130 after
    Ctrl-C, 143 after SIGTERM. One of several processes ends instead of returning.
  """
  config = None
  try:
    flags, rest = _parser().parse_known_args(argv)
  except SystemExit as stop:
    return int(stop.code or 0)
  if hasattr(sys.stdout, 'reconfigure'):  # a file's name need not be text
    sys.stdout.reconfigure(errors='backslashreplace')
  try:
    joining = cluster.find(vars(flags), os.environ)
    set_up_jax()
    # Imported late: jax reads the environment when it is first imported.
    from ldm_jax.config import comments, loading, parsing

    overrides = _overrides(rest)
    config = parsing.override(loading.load(flags.config, overrides), overrides)
    if flags.print_config:
      print(comments.text(config), end='')
      return 0
    if not flags.workdir:
      raise ValueError('--workdir is missing; name the folder for all results.')
    if 'doctor' in flags.stages.split(','):
      words = (f'--config={flags.config}', f'--workdir={flags.workdir}', *rest)
      config.doctor.command = words
    if joining is None:
      _run_stages(config, flags)
      return 0
    cluster.join(joining, flags.debug)
    with cluster.silent_unless_first():
      _check_processes(config, flags)
      _run_stages(config, flags)
    cluster.leave(0)
    return 0
  except KeyboardInterrupt as stop:
    told = str(stop) or 'Interrupted'
    print(f'{told}; the same command goes on from here.', file=sys.stderr)
    return _left(processes.status_of(stop), told)
  except processes.ToldError as error:
    cluster.leave_as_told(str(error), error.status)
    return error.status
  except ValueError as error:
    cluster.explain(error)
    return _fail(_noted(error, flags.workdir), 2, flags, config)
  except Exception as error:
    cluster.explain(error)
    return _fail(error, 1, flags, config)


def _run_stages(config, flags):
  from ldm_jax import interruption, stages
  from ldm_jax.config import checks

  with interruption.terminable():
    stages.run(checks.check(config), flags.workdir, flags.stages)


def _check_processes(config, flags):
  """Refuses processes that were not started alike, or do not see one work folder."""
  import jax
  import jaxlib

  from ldm_jax.config import parsing

  cluster.check_alike(
    **{
      'the version of ldm_jax': ldm_jax.__version__,
      'the code of ldm_jax': cluster.code_digest(),
      'the version of jax': f'{jax.__version__}, jaxlib {jaxlib.__version__}',
      '--stages': flags.stages,
      'the config (its sha256)': parsing.digest(parsing.to_plain(config)),
    }
  )
  cluster.check_shared(flags.workdir)


def _left(status, told):
  """Tells the other processes of a run, if there are any, and ends; else the status."""
  cluster.leave(status, told)
  return status


def _parser() -> argparse.ArgumentParser:
  from ldm_jax.config import parsing

  told = (__doc__ or '').format(
    names=', '.join(parsing.config_names()), folder=parsing.packaged('configs').parent
  )
  parser = argparse.ArgumentParser(
    prog='ldm-jax',
    description=told,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, help='see above')
  parser.add_argument('--workdir', default='', help='folder for all results')
  parser.add_argument('--stages', default='', help='comma-separated names')
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  parser.add_argument(
    '--print_config', action='store_true', help='every key, value and comment; no run'
  )
  several = parser.add_argument_group(
    'several processes of one run', 'Slurm, Open MPI and Cloud TPU need no flags'
  )
  several.add_argument('--coordinator', help='HOST:PORT of process 0, for all the same')
  several.add_argument('--num_processes', type=int, help='how many there are')
  several.add_argument('--process_id', type=int, help='of this one, from 0')
  version = f'ldm-jax {ldm_jax.__version__}'
  parser.add_argument('--version', action='version', version=version)
  return parser


def run() -> NoReturn:
  """Entry point of the console script."""
  sys.exit(main())


def _overrides(words):
  """['--config.a.b=1', ...] -> {'a.b': '1'}."""
  overrides = {}
  for word in words:
    key, equals, value = word.partition('=')
    if not key.startswith('--config.') or not equals:
      raise ValueError(
        f'The flag {word!r} is not known. Flags are --config, --workdir, --stages, '
        '--debug and overrides like --config.adapt.steps=200 (with =).'
      )
    overrides[key.removeprefix('--config.')] = value
  return overrides


def _noted(error, workdir):
  """The error to show: what names patients is moved to files in the store."""
  if not getattr(error, 'details', None):
    return error
  from ldm_jax.data.cohorts import roles
  from ldm_jax.workfolder import WorkFolder

  try:
    store = WorkFolder(workdir).store
    paths = [str(roles.write_notes(store, *each)) for each in error.details.items()]
  except (OSError, ValueError) as failure:
    return ValueError(f'{error} (The details cannot be written: {failure})')
  return ValueError(
    f'{error} Ids and values are listed in {", ".join(paths)}, which stays with the '
    'data.'
  )


def _fail(error, status, flags, config):
  keeps, message = _has_patients(config), str(error) or type(error).__name__
  if flags.debug and not keeps:
    traceback.print_exc()
  # What is not raised to be read may name patients, by their paths or as keys.
  names_nothing = isinstance(error, ValueError | RuntimeError) or ADVICE in message
  if isinstance(error, OSError) and error.errno and error.filename is None:
    names_nothing = True
  if keeps and not names_nothing:
    reason = getattr(error, 'strerror', None) or 'its message may name patients'
    kept = (
      f'{type(error).__name__}: {reason}. It is in {_kept_traceback(flags.workdir)}'
    )
    message = f'{kept}, which stays with the data.'
  elif isinstance(error, OSError):
    if ADVICE not in message:
      message = f'{message}: {ADVICE}; what was written so far is intact.'
  elif status == 1:
    message = f'{type(error).__name__}: {message} (--debug shows where)'
  if keeps and flags.debug and names_nothing:
    message = f'{message} (The traceback is in {_kept_traceback(flags.workdir)}.)'
  message = _paragraph(message)
  print(f'ldm-jax: {message}', file=sys.stderr)
  return _left(status, message)


def _has_patients(config):
  """Whether a config reads private or test patients who are no phantoms."""
  if config is None:
    return False
  from ldm_jax.data.cohorts import roles

  layouts = (config.data[name].layout for name in roles.CONFIDENTIAL)
  return any(layout and not layout.startswith('phantom_') for layout in layouts)


def _kept_traceback(workdir):
  """Writes the traceback of the current error into the store; returns where it is."""
  from ldm_jax import atomic
  from ldm_jax.workfolder import WorkFolder

  try:
    path = WorkFolder(workdir).store / 'traceback.txt'
    atomic.write_bytes(path, traceback.format_exc().encode(), mode=0o600)
  except (OSError, ValueError) as failure:
    return f'no file, which could not be written ({type(failure).__name__})'
  return path


def _paragraph(message):
  """One line of bounded length, whatever a file's name or content put into it."""
  text = ''.join(c if c.isprintable() else ' ' for c in message)
  text = ' '.join(text.split())
  return text if len(text) <= LONGEST else f'{text[: LONGEST - 500]} ... {text[-490:]}'


if __name__ == '__main__':
  run()
