"""The Pythons of this machine that can run the packages of this one.

Where a fault of memory shows depends on what an interpreter has laid out before: the
same program ended with Debian's own Python and went on with one built by pyenv.
"""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = '{}.{}'.format(*sys.version_info)
NAMES = (f'python{VERSION}', 'python3', 'python')
TELL = (
  'import os, sys, numpy; print(os.path.realpath(sys.executable), *sys.version_info)'
)


@functools.cache
def interpreters():
  """Paths: this one, then others of its version, each another file."""
  folders = ['/usr/bin', '/usr/local/bin', *os.get_exec_path()]
  paths = [shutil.which(name, path=folder) for folder in folders for name in NAMES]
  found, seen = [sys.executable], {os.path.realpath(sys.executable)}
  for path in filter(None, paths):
    told = subprocess.run(
      [path, '-c', TELL], env=environment(path), capture_output=True, text=True
    )
    file, *version = told.stdout.split()[:3] or (path,)
    if version == VERSION.split('.') and file not in seen:
      seen.add(file)
      found.append(path)
  return found


def environment(python, **more):
  """Variables under which an interpreter finds the packages of this one."""
  paths = [str(ROOT)]
  if python != sys.executable:
    paths += dict.fromkeys(sysconfig.get_paths()[key] for key in ('purelib', 'platlib'))
  return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), **more}
