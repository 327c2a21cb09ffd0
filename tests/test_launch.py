"""The launch scripts: dry runs, missing variables, quoting, and what is made once."""

import json
import os
import pathlib
import runpy
import shlex
import shutil
import subprocess
import sys
import time

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


def test_the_tpu_command_survives_the_shell_of_every_machine():
  words = dry(
    LAUNCH / 'tpu_pod.sh', 'c', 'a b', **SETTINGS['tpu_pod.sh'], TPU_TYPE='v5p-128'
  )
  assert [line[4] for line in words] == ['create', 'ssh', 'scp', 'ssh']
  assert all({'--project=p', '--zone=z'} < set(line) for line in words)
  assert all('--worker=all' in line for line in words[1:])
  remote = next(w for w in words[-1] if w.startswith('--command=')).partition('=')[2]
  assert shlex.split(remote) == ['EXTRAS=tpu', 'ldm_jax/launch/local.sh', 'c', 'a b']


def test_a_spot_slice_is_a_queued_resource():
  given = {**SETTINGS['tpu_pod.sh'], 'TPU_TYPE': 'v5litepod-16', 'SPOT': '1'}
  create, *_ = dry(LAUNCH / 'tpu_pod.sh', 'c', 'w', **given)
  assert create[3:5] == ['queued-resources', 'create'] and '--spot' in create
  assert '--accelerator-type=v5litepod-16' in create
  del given['TPU_TYPE']
  done = call(LAUNCH / 'tpu_pod.sh', 'c', 'w', DRY_RUN='1', **given)
  assert done.returncode != 0 and 'TPU_TYPE: set TPU_TYPE' in done.stderr


# Stands for gcloud: notes its verb. The slice is in the state of the file STATE; the
# runs on it end one after another with the statuses in the file RUNS.
FAKE_GCLOUD = """#!/usr/bin/env bash
case "$4 $*" in
  describe*) cat "$STATE"; exit ;;
  create*) echo READY > "$STATE" ;;
  delete*) echo > "$STATE" ;;
esac
echo "$4" >> "$NOTES"
[[ $* == *local.sh* ]] || exit 0
read -r status state < "$RUNS"; sed -i 1d "$RUNS"; echo "$state" > "$STATE"
exit "$status"
"""


@pytest.fixture
def gcloud(tmp_path):
  """Calls tpu_pod.sh with runs of these (status, state): (process, verbs)."""
  program, notes = tmp_path / 'bin' / 'gcloud', tmp_path / 'notes'
  program.parent.mkdir()
  program.touch(0o755)
  runs, state = tmp_path / 'runs', tmp_path / 'state'

  def launch(*ends, begun='', fake=FAKE_GCLOUD, **settings):
    program.write_text(fake)
    notes.write_text('')
    state.write_text(f'{begun}\n')
    runs.write_text(''.join(f'{status} {then}\n' for status, then in ends))
    path = f'{program.parent}:{os.environ["PATH"]}'
    given = {**SETTINGS['tpu_pod.sh'], 'TPU_TYPE': 'v4-32', 'WAIT_SECONDS': '0'}
    given |= {'NOTES': str(notes), 'RUNS': str(runs), 'STATE': str(state), **settings}
    done = call(LAUNCH / 'tpu_pod.sh', 'c', 'w', path=path, **given)
    return done, notes.read_text().split()

  return launch


ONCE = ['ssh', 'scp', 'ssh']


def test_a_slice_that_is_preempted_is_asked_for_again_and_the_run_goes_on(gcloud):
  done, verbs = gcloud((255, 'PREEMPTED'), (0, 'READY'), SPOT='1')
  assert done.returncode == 0, done.stderr
  assert verbs == ['create', *ONCE, 'delete', 'create', *ONCE]


def test_a_queued_resource_that_failed_is_told_and_asked_for_again(gcloud):
  fake = FAKE_GCLOUD.replace('echo READY', 'echo "$CREATED"')
  done, verbs = gcloud(CREATED='FAILED', SPOT='1', fake=fake)
  assert done.returncode == 2 and verbs == ['create']
  assert 'is FAILED' in done.stderr and 'asks again' in done.stderr
  done, verbs = gcloud((0, 'READY'), SPOT='1', begun='FAILED')
  assert done.returncode == 0 and verbs == ['delete', 'create', *ONCE]


def test_the_image_is_that_of_the_type():
  given = {**SETTINGS['tpu_pod.sh'], 'TPU_TYPE': 'v5p-128'}
  script = LAUNCH / 'tpu_pod.sh'
  assert '--version=v2-alpha-tpuv5' in dry(script, 'c', 'w', **given)[0]
  assert '--version=mine' in dry(script, 'c', 'w', **given, TPU_IMAGE='mine')[0]


def test_a_run_that_lost_a_host_goes_on_on_the_same_slice(gcloud):
  done, verbs = gcloud((75, 'READY'), (143, 'READY'), (0, 'READY'))
  assert done.returncode == 0 and verbs == ['create', *ONCE, *ONCE, *ONCE]


def test_what_a_restart_cannot_repair_ends_the_launch(gcloud):
  done, verbs = gcloud((2, 'READY'))
  assert done.returncode == 2 and verbs == ['create', *ONCE]
  done, verbs = gcloud((75, 'READY'), (75, 'READY'), RESTARTS='1')
  assert done.returncode == 75 and verbs == ['create', *ONCE, *ONCE]


def test_slurm_asks_for_nodes_gpus_and_tasks():
  launch = lambda **given: dry(
    LAUNCH / 'gpu_slurm.sh', 'c', 'w', **SETTINGS['gpu_slurm.sh'], **given
  )[0]
  one = set(launch())
  assert {'--nodes=1', '--gpus-per-node=1', '--ntasks-per-node=1'} < one
  several = set(launch(NODES='4', GPUS='8'))
  assert {'--nodes=4', '--gpus-per-node=8', '--ntasks-per-node=8'} < several
  by_node = set(launch(NODES='4', GPUS='8', TASKS='node'))
  assert '--ntasks-per-node=1' in by_node and '--gpus-per-node=8' in by_node
  on_cpus = launch(NODES='2', GPUS='0')
  assert not any('gpus' in word for word in on_cpus)


@pytest.mark.parametrize('wrong', [{'NODES': 'x'}, {'NODES': '0'}, {'TASKS': 'core'}])
def test_slurm_names_a_setting_that_is_wrong(wrong):
  given = {**SETTINGS['gpu_slurm.sh'], 'DRY_RUN': '1', **wrong}
  done = call(LAUNCH / 'gpu_slurm.sh', 'c', 'w', **given)
  assert done.returncode == 2 and next(iter(wrong)) in done.stderr


def test_a_slurm_job_of_several_tasks_starts_them_all(tmp_path):
  spool = shutil.copy(LAUNCH / 'gpu_slurm.sh', tmp_path / 'slurm_script')
  job = {'SLURM_JOB_ID': '1', 'LDM_JAX_REPO': str(ROOT), 'SLURM_NTASKS': '4'}
  (words,) = dry(spool, 'configs/cardiac.py:tiny', 'a b', **job)
  assert words[0] == 'srun' and '--kill-on-bad-exit=1' in words
  assert words[-3:] == [str(LAUNCH / 'local.sh'), 'configs/cardiac.py:tiny', 'a b']


def test_a_slurm_job_of_a_tool_starts_the_tool_which_starts_the_tasks(tmp_path):
  settings = {**SETTINGS['gpu_slurm.sh'], 'OPTIONS': '--array=0-3 --parsable'}
  (words,) = dry(LAUNCH / 'gpu_slurm.sh', 'c', 'w', **settings)
  assert {'--array=0-3', '--parsable'} < set(words[: words.index('c')])
  spool = shutil.copy(LAUNCH / 'gpu_slurm.sh', tmp_path / 'slurm_script')
  job = {'SLURM_JOB_ID': '1', 'LDM_JAX_REPO': str(ROOT), 'SLURM_NTASKS': '4'}
  (words,) = dry(spool, 'c', 'w', '--task=first', **job, LDM_JAX_TOOL='sweep.py')
  assert words[1:] == [str(LAUNCH / 'sweep.py'), 'c', 'w', '--task=first']


def commands(folder, **scripts):
  """A PATH whose first folder has these commands, name -> shell script."""
  folder.mkdir()
  for name, script in scripts.items():
    (folder / name).write_text(f'#!/bin/sh\n{script}\n')
    (folder / name).chmod(0o755)
  return f'{folder}:{os.environ["PATH"]}'


@pytest.mark.parametrize(
  ('status', 'restarts', 'is_requeued'),
  [
    (0, 0, False),
    (2, 0, False),
    (143, 0, True),
    (143, 500, True),
    (75, 19, True),
    (75, 20, False),
    (137, 20, False),
  ],
)
def test_a_slurm_job_that_may_go_on_is_requeued(
  checkout, tmp_path, status, restarts, is_requeued
):
  root, notes = checkout.root, tmp_path / 'notes'
  (root / 'launch' / 'local.sh').write_text(f'#!/bin/sh\nexit {status}\n')
  path = commands(tmp_path / 'bin', scontrol=f'echo "$*" > "{notes}"')
  job = {'SLURM_JOB_ID': '7', 'LDM_JAX_REPO': str(root), 'SLURM_NTASKS': '1'}
  job['SLURM_RESTART_COUNT'] = str(restarts)
  done = call(root / 'launch' / 'gpu_slurm.sh', 'c', 'w', path=path, **job)
  assert done.returncode == status
  assert notes.exists() == is_requeued
  assert not is_requeued or notes.read_text() == 'requeue 7\n'


def test_a_signal_to_a_slurm_job_reaches_its_tasks_by_slurm_and_not_by_srun(
  checkout, tmp_path
):
  """srun kills its tasks where it gets SIGTERM itself."""
  root, notes, begun = checkout.root, tmp_path / 'notes', tmp_path / 'begun'
  (root / 'launch' / 'local.sh').write_text('#!/bin/sh\n')
  wait = f'while [ ! -f "{notes}" ]; do sleep 0.05; done; exit 143'
  path = commands(
    tmp_path / 'bin',
    srun=f'trap "exit 9" TERM; touch "{begun}"; {wait}',
    scancel=f'echo "$*" > "{notes}"',
    scontrol=f'echo "$*" >> "{notes}"',
  )
  environment = {'PATH': path, 'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '2'}
  script = root / 'launch' / 'gpu_slurm.sh'
  job = subprocess.Popen(
    ['bash', str(script), 'c', 'w'], env={**environment, 'LDM_JAX_REPO': str(root)}
  )
  while not begun.exists() and job.poll() is None:
    time.sleep(0.05)
  job.terminate()
  assert job.wait(30) == 143
  assert notes.read_text() == '--signal=TERM 7\nrequeue 7\n'


def manifests(*args, **settings):
  """Documents of a dry run of k8s.sh."""
  yaml = pytest.importorskip('yaml')
  given = {**SETTINGS['k8s.sh'], 'DRY_RUN': '1', **settings}
  done = call(LAUNCH / 'k8s.sh', *(args or ('c', '/data/w')), **given)
  assert done.returncode == 0, done.stderr
  text, _, command = done.stdout.rstrip().rpartition('\n')
  assert command.startswith('kubectl --namespace=default apply')
  return list(yaml.safe_load_all(text))


def test_pods_of_a_tool_are_single_and_fail_alone():
  _, job = manifests('c', '/data/w', '--task=first', TOOL='sweep.py', ARMS='3')
  assert job['spec']['completions'] == job['spec']['parallelism'] == 3
  assert job['spec']['backoffLimitPerIndex'] == 20 and 'backoffLimit' not in job['spec']
  rules = job['spec']['podFailurePolicy']['rules']
  assert [rule['action'] for rule in rules] == ['FailIndex', 'Ignore']
  (container,) = job['spec']['template']['spec']['containers']
  assert container['command'][:2] == ['sh', '-c']
  assert '/sweep.py"' in container['command'][2]
  assert container['args'] == ['c', '/data/w', '--task=first']


def test_several_pods_are_a_jobset_whose_pods_know_their_numbers():
  (jobset,) = manifests(PODS='4', GPUS='8')
  assert jobset['kind'] == 'JobSet'
  (group,) = jobset['spec']['replicatedJobs']
  job = group['template']['spec']
  assert job['completionMode'] == 'Indexed' and job['parallelism'] == 4
  (container,) = job['template']['spec']['containers']
  assert container['args'][-3:] == [
    '--coordinator=ldm-jax-workers-0-0.ldm-jax:8476',
    '--num_processes=4',
    '--process_id=$(JOB_COMPLETION_INDEX)',
  ]
  assert container['resources']['limits']['nvidia.com/gpu'] == 8


def test_without_jobset_pods_find_each_other_by_a_service():
  service, job = manifests(PODS='2', KIND='job')
  assert service['kind'] == 'Service' and service['spec']['clusterIP'] == 'None'
  pod = job['spec']['template']
  assert service['spec']['selector'] == pod['metadata']['labels']
  assert pod['spec']['subdomain'] == service['metadata']['name'] == 'ldm-jax'
  (container,) = pod['spec']['containers']
  assert '--coordinator=ldm-jax-0.ldm-jax:8476' in container['args']


def test_a_pod_of_a_tpu_slice_goes_to_the_nodes_of_its_topology():
  (jobset,) = manifests(PODS='4', TPU='tpu-v5p-slice', TOPOLOGY='2x2x4')
  (group,) = jobset['spec']['replicatedJobs']
  pod = group['template']['spec']['template']['spec']
  assert set(pod['nodeSelector'].values()) == {'tpu-v5p-slice', '2x2x4'}
  assert pod['containers'][0]['resources']['limits']['google.com/tpu'] == 4


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'PODS': '4', 'KIND': 'job'},
    {'PODS': '4'},
    {'TOOL': 'sweep.py', 'ARMS': '3'},
    {'PODS': '4', 'TPU': 'tpu-v6e-slice', 'TOPOLOGY': '4x4'},
  ],
)
def test_kubernetes_takes_the_manifests(settings):
  validate = pytest.importorskip('kubernetes_validate')
  for found in manifests(**settings):
    if found['kind'] == 'JobSet':  # its job, by the schema of Kubernetes itself
      (group,) = found['spec']['replicatedJobs']
      job = group['template']
      found = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {}, **job}
    validate.validate(found, '1.30', strict=True)


@pytest.mark.parametrize(
  'wrong', [{'PODS': '0'}, {'PODS': 'many'}, {'KIND': 'pod'}, {'NAME': 'Big Name'}]
)
def test_kubernetes_settings_that_are_wrong_are_named(wrong):
  given = {**SETTINGS['k8s.sh'], 'DRY_RUN': '1', **wrong}
  done = call(LAUNCH / 'k8s.sh', 'c', 'w', **given)
  assert done.returncode == 2 and not done.stdout
  assert '='.join(next(iter(wrong.items()))) in done.stderr


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
