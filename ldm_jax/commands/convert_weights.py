"""The command ldm-jax-convert: weights of MONAI or diffusers -> ours, and back.

ldm-jax-convert --from=monai --config=unet.json --weights=unet.pt --out=CHECKPOINT
ldm-jax-convert --to=monai --config=unet.json --weights=CHECKPOINT --out=FILE.npz

The JSON holds the constructor's arguments (diffusers: its config.json). CHECKPOINT is a
folder: our parameters, and module.json with the module and its options.

Exit status 0, or 2 with one paragraph on stderr.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import jax
import jax.numpy as jnp

from ldm_jax import atomic
from ldm_jax.models import convert
from ldm_jax.models.interop import weights
from ldm_jax.training import checkpoint


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='ldm-jax-convert',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  direction = parser.add_mutually_exclusive_group(required=True)
  direction.add_argument('--from', dest='source', choices=sorted(convert.BUILDERS))
  direction.add_argument('--to', dest='target', choices=sorted(convert.BUILDERS))
  parser.add_argument('--config', required=True, help='JSON of the network')
  parser.add_argument('--network', default='', help='class, if the JSON names none')
  parser.add_argument('--weights', required=True, help='file, or CHECKPOINT with --to')
  parser.add_argument('--out', required=True, help='CHECKPOINT, or a file with --to')
  try:
    flags = parser.parse_args(argv)
  except SystemExit as stop:
    return int(stop.code or 0)
  try:
    reference = read_reference(
      flags.source or flags.target, flags.config, flags.network
    )
    if flags.source:
      import_weights(reference, flags.weights, flags.out)
    else:
      params = checkpoint.load_params(pathlib.Path(flags.weights))
      weights.write(flags.out, convert.to_theirs(reference, params))
  except (ValueError, OSError) as error:
    print(f'ldm-jax-convert: {error}', file=sys.stderr)
    return 2
  print(f'Wrote {flags.out}')
  return 0


def run() -> NoReturn:
  """Entry point of the console script."""
  sys.exit(main())


def read_reference(
  library: str, path: str | os.PathLike, network: str = ''
) -> convert.Reference:
  """The `convert.Reference` of a JSON file.

  Raises:
    ValueError: an unreadable file, an unknown network, or an unsupported option.
  """
  try:
    config = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} could not be read as JSON: {error}') from error
  if not isinstance(config, dict):
    raise ValueError(
      f'{path} holds no object; expected the constructor arguments of a network.'
    )
  config = config['config'] if isinstance(config.get('config'), dict) else config
  named = network or config.get('_class_name') or config.get('_target_') or ''
  known = convert.BUILDERS[library]
  name = named.rpartition('.')[2]
  if not named:
    kind = 'AutoencoderKL' if 'latent_channels' in config else 'UNet'
    name = next(name for name in known if kind in name)
  if name not in known:
    raise ValueError(
      f'{path} names the network {name!r}; from {library} are known '
      f'{", ".join(known)}. Name one with --network.'
    )
  return known[name](config)


def import_weights(
  reference: convert.Reference, source: str | os.PathLike, folder: str | os.PathLike
) -> None:
  """Writes the parameters and module.json into a new folder.

  Raises:
    ValueError: weights that do not fit; a folder that is not empty.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(f'{folder} exists and is not empty; choose another --out.')
  params = convert.to_ours(reference, weights.read(source))
  checkpoint.save_params(folder, jax.tree.map(jnp.asarray, params))
  module = {'class': type(reference.module).__name__, 'options': _options(reference)}
  atomic.write_json(folder / 'module.json', module)


def _options(reference):
  """The module's options that are not its defaults."""
  options = {}
  for field in dataclasses.fields(reference.module):
    value = getattr(reference.module, field.name)
    if field.name not in ('parent', 'name') and value != field.default:
      options[field.name] = value
  return options


if __name__ == '__main__':
  run()
