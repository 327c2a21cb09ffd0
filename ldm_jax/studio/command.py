"""The command ldm-jax-studio: a local page with a model's sliders and a 3D viewer.

ldm-jax-studio --model=shareable.zip
ldm-jax-studio --workdir=W      (marked internal: a finished run beside its scans)

Only this machine can open the page, and only with the address that the command prints:
it holds a random token. Scans that are loaded stay in memory.

Exit status 0, 1 when the port is taken, 2 for flags or a model that cannot be used; one
paragraph on stderr says why.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import NoReturn

from ldm_jax import jax_environment

INSTALL = (
  'The studio needs starlette and uvicorn, which are not installed ({error}); run: '
  "pip install 'ldm-jax[studio]'"
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='ldm-jax-studio',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--model', default='', help='shareable.zip, or its folder')
  parser.add_argument('--workdir', default='', help='folder of a finished run')
  parser.add_argument('--port', type=int, default=0, help='0 for any that is free')
  try:
    flags = parser.parse_args(argv)
  except SystemExit as stop:
    return int(stop.code or 0)
  try:
    if bool(flags.model) == bool(flags.workdir):
      raise ValueError('Give either --model=shareable.zip or --workdir=W.')
    if not 0 <= flags.port < 2**16:
      raise ValueError(f'--port is {flags.port}, expected 0 to 65535.')
    jax_environment.set_up_jax()
    try:
      from ldm_jax.studio import server
    except ModuleNotFoundError as error:
      raise ValueError(INSTALL.format(error=error)) from error
    announce = functools.partial(print, flush=True)
    server.serve(_model(flags), flags.port, announce)
    return 0
  except ValueError as error:
    print(f'ldm-jax-studio: {error}', file=sys.stderr)
    return 2
  except OSError as error:
    print(f'ldm-jax-studio: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 0


def run() -> NoReturn:
  """Entry point of the console script."""
  sys.exit(main())


def _model(flags):
  # Imported late: both import jax.
  if flags.workdir:
    from ldm_jax.studio import internal

    return internal.open_workdir(flags.workdir)
  from ldm_jax.sharing import open_model

  return open_model.load(flags.model)


if __name__ == '__main__':
  run()
