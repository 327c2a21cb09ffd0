"""The launch scripts: dry runs, missing variables, quoting, and what is made once."""

import json
import os
import pathlib
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCH = ROOT / 'launch'
SCRIPTS = [*sorted(LAUNCH.glob('*.sh')), ROOT / '.ci' / 'run']
SETTINGS = {
  'gpu_slurm.sh': {'PARTITION': 'gpu'},
  'tpu_pod.sh': {'PROJECT': 'p', 'ZONE': 'z', 'TPU_NAME': 't'},
  'k8s.sh': {'IMAGE': 'image', 'CLAIM': 'claim'},
}
# Stands for an interpreter: makes an environment of itself, and notes pip's calls.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
  '-m venv --without-pip'*) [[ -z ${NO_VENV:-} ]] || exit 1
    mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo 'venv' >> "$NOTES" ;;
  '-m venv'*) [[ -z ${NO_ENSUREPIP:-} ]] || exit 1
    mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo 'venv' >> "$NOTES"
    touch "$3/pip"; ln -s python "$3/bin/ldm-jax" ;;
  '-m pip --python'*) [[ -z ${NO_PIP:-} ]] || exit 1
    touch "$(dirname "$4")/../pip"; echo 'pip' >> "$NOTES" ;;
  *'-m pip --version'*) [[ -f $(dirname "$0")/../pip ]] ;;
  '-m pip install'*) echo "${*: -1}" >> "$NOTES"
    [[ $* != *"${BROKEN:-nothing}"* ]] || exit 1 ;;
  '-m pytest'*) echo "pytest ${*:7}" >> "$NOTES" ;;
  '--config='*) echo "ldm-jax $*" >> "$NOTES" ;;
esac
"""


def call(script, *args, cwd=None, path=None, **settings):
  keep = ('HOME', 'LANG', 'TMPDIR')
  env = {name: os.environ[name] for name in keep if name in os.environ}
  env |= {'PATH': path or os.environ['PATH'], **settings}
  return subprocess.run(
    ['bash', str(script), *args], cwd=cwd, env=env, capture_output=True, text=True
  )


def dry(script, *args, **kwargs):
  """Words of each printed command."""
  done = call(script, *args, DRY_RUN='1', **kwargs)
  assert done.returncode == 0, done.stderr
  return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.fixture
def checkout(tmp_path):
  """A repository without code, in a folder with a blank; an interpreter; its notes."""
  root = tmp_path / 'a repo'
  shutil.copytree(LAUNCH, root / 'launch')
  for name in ('setup.py', 'pyproject.toml'):
    shutil.copy(ROOT / name, root / name)
  (root / 'configs').mkdir()
  (root / 'configs' / 'cardiac.py').touch()
  python = tmp_path / 'fake python'
  python.write_text(FAKE_PYTHON)
  python.chmod(0o755)
  notes = tmp_path / 'notes'

  def launch(*args, script='test.sh', **settings):
    notes.write_text('')
    done = call(
      root / 'launch' / script,
      *args,
      PYTHON=str(python),
      NOTES=str(notes),
      **settings,
    )
    return done, notes.read_text().splitlines()

  launch.root = root
  return launch


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_is_executable(script):
  assert subprocess.run(['bash', '-n', str(script)]).returncode == 0
  assert script.name == 'common.sh' or os.access(script, os.X_OK)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
  if shutil.which('shellcheck') is None:
    pytest.skip('shellcheck is not installed')
  command = ['shellcheck', '-x', '-P', str(LAUNCH), str(script)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


def test_local_without_arguments_runs_the_tiny_phantom_from_any_directory(tmp_path):
  ((program, config, workdir),) = dry(LAUNCH / 'local.sh', cwd=tmp_path)
  assert program == str(ROOT / '.venv' / 'bin' / 'ldm-jax')
  assert config == f'--config={ROOT}/configs/cardiac.py:tiny'
  assert workdir == f'--workdir={ROOT}/runs/cardiac-tiny'


def test_local_hands_on_workdir_and_flags_word_for_word(tmp_path):
  flags = ('--config.name=two words', '--stages=prepare', "--config.data.x='$(q)'")
  words = dry(
    LAUNCH / 'local.sh', 'configs/cardiac.py:tiny', 'my runs/1', *flags, cwd=tmp_path
  )
  assert words[0][2:] == ['--workdir=my runs/1', *flags]


def test_a_config_of_the_callers_directory_comes_before_the_repositorys(tmp_path):
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'cardiac.py').touch()
  words = dry(LAUNCH / 'local.sh', 'configs/cardiac.py:small,root=../x', cwd=tmp_path)
  assert words[0][1] == '--config=configs/cardiac.py:small,root=../x'


def test_runs_with_different_arguments_get_different_default_folders():
  folders = {
    dry(LAUNCH / 'local.sh', f'configs/cardiac.py{args}')[0][2]
    for args in (
      '',
      ':tiny',
      ':small',
      ':tiny,data=scd,root=a',
      ':tiny,data=scd,root=b',
    )
  }
  assert len(folders) == 5


@pytest.mark.parametrize('args', [('configs/cardiak.py',), ('--stages=prepare',)])
def test_a_bad_first_argument_ends_with_status_2_before_anything_is_made(
  checkout, args
):
  done = call(checkout.root / 'launch' / 'local.sh', *args)
  assert done.returncode == 2
  assert args[0] in done.stderr
  assert not (checkout.root / '.venv').exists()


def test_fast_leaves_out_what_there_is_and_the_pipeline(pytestconfig):
  (plugin,) = (
    module
    for module in pytestconfig.pluginmanager.get_plugins()
    if getattr(module, '__file__', None) == str(ROOT / 'tests' / 'conftest.py')
  )
  missing = [name for name in plugin.SLOW if not (ROOT / 'tests' / name).exists()]
  assert not missing, f'SLOW of tests/conftest.py names {missing}'
  words = dry(LAUNCH / 'test.sh', '--fast', cwd='/')
  assert words[0][-1] == '--fast'

  class Item:
    def __init__(self, name, *fixtures):
      self.path, self.fixturenames = ROOT / 'tests' / name, fixtures

  class Config:
    getoption = staticmethod(lambda name: name == 'fast')
    hook = type('Hook', (), {'pytest_deselected': staticmethod(lambda items: None)})

  names = ('test_docs.py', 'models/test_norms.py', 'test_atomic.py')
  items = [*map(Item, names), Item('test_atomic.py', 'finished')]
  plugin.pytest_collection_modifyitems(Config, items)
  left = [item.path.name for item in items]
  assert left == ['test_docs.py', 'test_atomic.py']


def test_test_hands_on_its_arguments_and_ci_calls_nothing_else():
  words = dry(LAUNCH / 'test.sh', '-k', 'a and b', cwd='/')
  shared = ['-m', 'pytest', '-n', '2', '--dist', 'worksteal']
  assert words[0][1:] == [*shared, '-k', 'a and b']
  lines = (ROOT / '.ci' / 'run').read_text().splitlines()[1:]
  assert len(lines) == 1 and lines[0].endswith('/../launch/test.sh"')
  assert dry(ROOT / '.ci' / 'run') == dry(LAUNCH / 'test.sh')


@pytest.mark.parametrize(
  ('script', 'name'), [(s, name) for s, names in SETTINGS.items() for name in names]
)
def test_a_missing_variable_is_named(script, name):
  settings = {k: v for k, v in SETTINGS[script].items() if k != name}
  done = call(LAUNCH / script, 'c', 'w', DRY_RUN='1', **settings)
  assert done.returncode != 0
  assert f'{name}: set {name}' in done.stderr


@pytest.mark.parametrize('script', ['tpu_pod.sh', 'k8s.sh'])
@pytest.mark.parametrize(('args', 'missing'), [((), 'CONFIG'), (('c',), 'WORKDIR')])
def test_a_missing_argument_is_named(script, args, missing):
  done = call(LAUNCH / script, *args, DRY_RUN='1', **SETTINGS[script])
  assert done.returncode != 0 and missing in done.stderr


def test_slurm_submits_itself_and_then_runs_local(tmp_path):
  settings = SETTINGS['gpu_slurm.sh']
  ((*command, last),) = dry(LAUNCH / 'gpu_slurm.sh', 'c', 'a b', **settings)
  assert command[:2] == ['sbatch', '--partition=gpu']
  assert command[-2:] == [str(LAUNCH / 'gpu_slurm.sh'), 'c'] and last == 'a b'
  spool = shutil.copy(LAUNCH / 'gpu_slurm.sh', tmp_path / 'slurm_script')
  job = {'SLURM_JOB_ID': '1', 'LDM_JAX_REPO': str(ROOT)}
  words = dry(spool, 'configs/cardiac.py:tiny', 'a b', **job)
  assert words[0][-1] == '--workdir=a b'


def test_the_tpu_command_survives_the_shell_of_the_machine():
  words = dry(
    LAUNCH / 'tpu_pod.sh', 'c', 'a b', **SETTINGS['tpu_pod.sh'], TPU_TYPE='v4'
  )
  assert [line[4] for line in words] == ['create', 'describe', 'ssh', 'scp', 'ssh']
  assert all({'--project=p', '--zone=z'} < set(line) for line in words)
  remote = next(w for w in words[-1] if w.startswith('--command=')).partition('=')[2]
  assert shlex.split(remote) == ['EXTRAS=tpu', 'ldm_jax/launch/local.sh', 'c', 'a b']


# Stands for gcloud: notes its verb, and tells how many hosts a machine has.
FAKE_GCLOUD = """#!/usr/bin/env bash
echo "$4" >> "$NOTES"
[[ $4 != describe ]] || echo "$HOSTS"
"""


@pytest.fixture
def gcloud(tmp_path):
  """Calls tpu_pod.sh where `gcloud` says HOSTS: (process, verbs it was called with)."""
  program, notes = tmp_path / 'bin' / 'gcloud', tmp_path / 'notes'
  program.parent.mkdir()
  program.write_text(FAKE_GCLOUD)
  program.chmod(0o755)

  def launch(**settings):
    notes.write_text('')
    path = f'{program.parent}:{os.environ["PATH"]}'
    given = {**SETTINGS['tpu_pod.sh'], 'NOTES': str(notes), **settings}
    done = call(LAUNCH / 'tpu_pod.sh', 'c', 'w', path=path, **given)
    return done, notes.read_text().split()

  return launch


@pytest.mark.parametrize('kind', ['v4-16', 'v5litepod-256', 'v6e-016'])
def test_a_tpu_slice_of_several_hosts_is_refused_before_it_is_made(gcloud, kind):
  done, verbs = gcloud(TPU_TYPE=kind, HOSTS='1')
  assert done.returncode == 2 and not verbs
  assert kind in done.stderr and 'one host' in done.stderr


@pytest.mark.parametrize('hosts', ['4', ''])
def test_a_tpu_machine_of_several_hosts_is_refused_before_anything_runs(gcloud, hosts):
  done, verbs = gcloud(HOSTS=hosts)
  assert done.returncode == 2 and verbs == ['describe']
  assert 'the same work folder' in done.stderr.replace('\n', ' ')


def test_a_tpu_machine_of_one_host_is_used(gcloud):
  done, verbs = gcloud(TPU_TYPE='v4-8', HOSTS='1')
  assert done.returncode == 0, done.stderr
  assert verbs == ['create', 'describe', 'ssh', 'scp', 'ssh']


@pytest.mark.parametrize('told', [{'SLURM_NTASKS': '2'}, {'SLURM_JOB_NUM_NODES': '2'}])
def test_a_slurm_job_of_several_tasks_or_nodes_is_refused(tmp_path, told):
  spool = shutil.copy(LAUNCH / 'gpu_slurm.sh', tmp_path / 'slurm_script')
  job = {'SLURM_JOB_ID': '1', 'LDM_JAX_REPO': str(ROOT), 'DRY_RUN': '1'}
  done = call(spool, 'configs/cardiac.py:tiny', 'w', **job, **told)
  assert done.returncode == 2 and not done.stdout
  assert '--ntasks=1' in done.stderr and '2' in done.stderr
  one = dict.fromkeys(told, '1')
  assert call(spool, 'configs/cardiac.py:tiny', 'w', **job, **one).returncode == 0


@pytest.mark.parametrize('line', ['--nodes=2', '--ntasks=16', '-N 4', '--nodes=1-2'])
def test_slurm_does_not_submit_a_job_of_several_tasks(checkout, line):
  script = checkout.root / 'launch' / 'gpu_slurm.sh'
  text = script.read_text()
  script.write_text(text.replace('#SBATCH --nodes=1', f'#SBATCH {line}'))
  done = call(script, 'c', 'w', PARTITION='gpu', DRY_RUN='1')
  assert done.returncode == 2 and not done.stdout
  assert line in done.stderr


@pytest.mark.parametrize('name', ['PARALLELISM', 'COMPLETIONS'])
def test_several_pods_are_refused(name):
  settings = {**SETTINGS['k8s.sh'], 'DRY_RUN': '1'}
  done = call(LAUNCH / 'k8s.sh', 'c', 'w', **settings, **{name: '2'})
  assert done.returncode == 2 and not done.stdout
  assert f'{name}=2' in done.stderr
  done = call(LAUNCH / 'k8s.sh', 'c', 'w', **settings)
  assert 'parallelism: 1' in done.stdout and 'completions: 1' in done.stdout


def test_the_kubernetes_manifest_quotes_its_arguments():
  args = ('c', '/data/a "b"', '--config.name=\\')
  done = call(LAUNCH / 'k8s.sh', *args, DRY_RUN='1', **SETTINGS['k8s.sh'])
  line = next(line for line in done.stdout.splitlines() if ' args: ' in line)
  assert json.loads(line.partition('args: ')[2]) == [
    '--config=c',
    '--workdir=/data/a "b"',
    '--config.name=\\',
  ]
  assert done.stdout.splitlines()[-1].startswith('kubectl --namespace=default apply')


def test_an_environment_is_made_once_and_again_when_the_dependencies_change(checkout):
  assert checkout('-x')[1] == ['venv', '.[dev]', '.[dev,interop]', 'pytest -x']
  assert checkout()[1] == ['pytest ']
  with open(checkout.root / 'setup.py', 'a') as file:
    file.write('# another dependency\n')
  assert checkout()[1] == ['.[dev]', '.[dev,interop]', 'pytest ']


@pytest.mark.parametrize(
  ('settings', 'wanted'), [({}, '.'), ({'EXTRAS': 'cuda'}, '.[cuda]')]
)
def test_local_installs_the_package_with_the_extras_that_are_asked_for(
  checkout, settings, wanted
):
  config = f'{checkout.root}/configs/cardiac.py'
  run = f'ldm-jax --config={config} --workdir=w --stages=prepare'
  args = (config, 'w', '--stages=prepare')
  assert checkout(*args, script='local.sh', **settings)[1] == ['venv', wanted, run]
  assert checkout(*args, script='local.sh', **settings)[1] == [run]


def test_an_environment_that_a_kill_left_half_made_is_made_anew(checkout):
  checkout()
  (checkout.root / '.venv' / '.incomplete').touch()
  assert checkout()[1][0] == 'venv'
  shutil.rmtree(checkout.root / '.venv' / 'bin')
  assert checkout()[1][0] == 'venv'
  assert checkout()[1] == ['pytest ']


def test_without_torch_the_tests_run_and_the_user_is_told(checkout):
  done, notes = checkout(BROKEN='interop')
  assert notes[-1] == 'pytest ' and 'interop' in done.stderr


def test_a_failed_installation_stops_and_is_tried_again(checkout):
  done, notes = checkout(BROKEN='dev')
  assert done.returncode == 2 and 'pytest ' not in notes
  assert checkout()[1] == ['.[dev]', '.[dev,interop]', 'pytest ']


def test_without_ensurepip_the_outer_pip_fills_the_environment(checkout):
  done, notes = checkout(NO_ENSUREPIP='1')
  assert done.returncode == 0, done.stderr
  assert notes[:2] == ['venv', 'pip']


def test_without_ensurepip_and_pip_the_message_says_what_to_install(checkout):
  done, _ = checkout(NO_ENSUREPIP='1', NO_PIP='1')
  assert done.returncode == 2 and 'python3-venv' in done.stderr


def test_an_old_or_missing_python_is_named(checkout, tmp_path):
  script = checkout.root / 'launch' / 'test.sh'
  done = call(script, PYTHON='/no/python')
  assert done.returncode == 2 and '/no/python' in done.stderr
  for name in ('dirname', 'awk', 'cat', 'cksum', 'rm', 'mkdir', 'touch'):
    (tmp_path / name).symlink_to(shutil.which(name))
  bash = shutil.which('bash')
  done = subprocess.run(
    [bash, str(script)], env={'PATH': str(tmp_path)}, capture_output=True, text=True
  )
  assert done.returncode == 2 and '3.11' in done.stderr
  assert not (checkout.root / '.venv').exists()


def test_sweep_prints_a_base_and_one_command_an_arm(tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      LAUNCH / 'sweep.py',
      ROOT / 'configs/cardiac.py',
      tmp_path / 'a b',
    ],
    env={**os.environ, 'DRY_RUN': '1'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  note, *lines = done.stdout.splitlines()
  assert 'accounted for by itself' in note
  base, *arms = [shlex.split(line) for line in lines]
  assert base[-1] == '--stages=prepare,autoencoder,encode,diffusion'
  assert len(arms) == 3
  assert len({line[4] for line in (base, *arms)}) == 1 + len(arms)
  assert not any(tmp_path.iterdir())


def test_every_part_of_the_evidence_runs_scripts_configs_and_groups_that_exist(
  tmp_path,
):
  folders = {'HIPPOCAMPUS': '/scans/h', 'SCD': '/scans/s'}
  lines = dry(LAUNCH / 'evidence.sh', str(tmp_path), **folders)
  listed = subprocess.run(
    [LAUNCH / 'evidence.sh', '--list'], capture_output=True, text=True, check=True
  )
  parts = listed.stdout.split()
  assert {pathlib.Path(word).name for line in lines for word in line} >= {
    *('quickstart', 'small', 'quality_x3', 'hippocampus', 'sunnybrook')
  }
  assert all(
    any(f'{tmp_path}/{part}' in ' '.join(line) for line in lines)
    for part in parts
    if part != 'benchmarks'
  )
  for line in lines:
    paths = [word.split(':')[0] for word in line if word.startswith(str(ROOT))]
    assert all(pathlib.Path(path).exists() for path in paths if '.venv' not in path)
    for word in line:
      if word.startswith('--group='):
        config = next(w for w in line if '/configs/' in w).split(':')[0]
        assert word.removeprefix('--group=') in runpy.run_path(config)['sweep']()


def test_evidence_names_the_parts_where_one_is_unknown(tmp_path):
  done = subprocess.run(
    [LAUNCH / 'evidence.sh', tmp_path, 'nosuch'], capture_output=True, text=True
  )
  assert (
    done.returncode == 2 and 'nosuch' in done.stderr and 'quickstart' in done.stderr
  )


def test_the_gpu_check_trains_summarises_draws_and_times(tmp_path):
  lines = dry(LAUNCH / 'gpu_check.sh', str(tmp_path), '--config.seed=3')
  scripts = [pathlib.Path(word).name for line in lines for word in line[:4]]
  for name in ('local.sh', 'run_summary.py', 'quickstart.py', 'dp_step.py'):
    assert name in scripts
  assert lines[0][-1] == '--config.seed=3'
