"""A Slurm of two nodes on this machine, for tests: two slurmd on the loopback.

It has a munge of its own and runs jobs as the user who starts it, who need not be root.
A job is requeued when its credential has expired: after 10 seconds instead of two
minutes.
"""

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

DAEMONS = ('slurmctld', 'slurmd', 'sbatch', 'srun', 'munged', 'mungekey')
CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=20
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d-%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d-%n.log
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
NodeName=DEFAULT CPUs=1 RealMemory=4000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_not():
  """Why no Slurm can be started here, '' where one can."""
  missing = [name for name in DAEMONS if shutil.which(name) is None]
  return f'{", ".join(missing)} of Slurm and munge are not installed' if missing else ''


class Slurm:
  """A controller and two nodes; `environment` is what its commands need.

  Raises:
    RuntimeError: it does not start, as where another Slurm or a container forbids it.
  """

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    for name in ('state', 'spool-n1', 'spool-n2'):
      (self.folder / name).mkdir(parents=True)
    about = {'folder': self.folder, 'ports': ports(3), 'user': getpass.getuser()}
    conf = CONF.format(host=socket.gethostname().partition('.')[0], **about)
    (self.folder / 'slurm.conf').write_text(conf)
    self.environment = {**os.environ, 'SLURM_CONF': str(self.folder / 'slurm.conf')}
    try:
      self._start()
    except (subprocess.CalledProcessError, TimeoutError) as error:
      self.stop()
      raise RuntimeError(f'Slurm does not start here: {error}') from error

  def _start(self):
    at = lambda name: str(self.folder / f'munge.{name}')
    self.call('mungekey', '--create', f'--keyfile={at("key")}')
    kinds = {'socket': 'socket', 'key-file': 'key', 'pid-file': 'pid'}
    kinds |= {'log-file': 'log', 'seed-file': 'seed'}
    places = [f'--{name}={at(kind)}' for name, kind in kinds.items()]
    self.call('munged', '--force', *places)
    self.call('slurmctld')
    self._wait_for(lambda: (self.folder / 'ctld.pid').is_file())
    for node in ('n1', 'n2'):
      self.call('slurmd', '-N', node)
    self._wait_for(lambda: self.call('sinfo', '-h', '-o', '%T').split() == ['idle'])

  def call(self, *words, **more):
    """What a command of this Slurm prints."""
    done = subprocess.run(
      words,
      env={**self.environment, **more},
      cwd=self.folder,
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
    return done.stdout.strip()

  def about(self, job):
    """What scontrol tells of a job: {'JobState': 'RUNNING', 'Restarts': '0', ...}."""
    told = self.call('scontrol', '-o', 'show', 'job', job)
    return dict(word.split('=', 1) for word in told.split() if '=' in word)

  def end_of(self, job, seconds):
    """The state in which a job ends, such as COMPLETED."""
    running = ('PENDING', 'RUNNING', 'COMPLETING', 'REQUEUED')
    state = lambda: self.about(job)['JobState']
    self._wait_for(lambda: state() not in running, seconds)
    return state()

  def stop(self):
    """Ends its jobs and its daemons."""
    with contextlib.suppress(subprocess.CalledProcessError, TimeoutError):
      for job in self.call('squeue', '-h', '-o', '%A').split():
        self.call('scancel', job)
      self._wait_for(lambda: not self.call('squeue', '-h'))
    for name in ('d-n1', 'd-n2', 'ctld', 'munge'):
      path = self.folder / f'{name}.pid'
      if path.is_file():
        os.kill(int(path.read_text()), signal.SIGTERM)

  def _wait_for(self, holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
      if time.monotonic() > end:
        logs = ', '.join(str(path) for path in self.folder.glob('*.log'))
        raise TimeoutError(f'not within {seconds:g} seconds; see {logs}')
      time.sleep(0.3)


def ports(count):
  """Numbers of ports that are free."""
  probes = [socket.socket() for _ in range(count)]
  for probe in probes:
    probe.bind(('127.0.0.1', 0))
  found = [probe.getsockname()[1] for probe in probes]
  for probe in probes:
    probe.close()
  return found
