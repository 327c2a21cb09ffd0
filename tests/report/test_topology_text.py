"""Laws of the lines on a slice: verdict, time, messages, what helps."""

from ldm_jax.report import topology_text

STEP = {
  'fits': True,
  'bytes': 2.0**30,
  'seconds': 0.012,
  'bound': 'messages',
  'operations': 3e12,
  'traffic_bytes': 2.0**31,
  'sent_bytes': 2.0**20,
  'collectives': {'all-reduce': {'count': 2, 'bytes': 2.0**20, 'sent': 2.0**20}},
}
FOUND = {
  'topology': 'h100x4',
  'devices': 4,
  'chip': 'h100',
  'memory_bytes': 80e9,
  'compiled': False,
  'notes': ['diffusion.batch_size=6 does not divide'],
  'steps': {'plain': STEP, 'private': STEP},
}


def test_verdict_time_and_messages_are_told():
  told = topology_text.lines(FOUND)
  for words in (
    *('On h100x4: 4 devices', 'estimates', 'does not divide', '12 ms a step'),
    *('plain    fits: 1 GiB', 'private  fits', 'bound by messages between devices'),
    *('3,000 GFLOP', 'all-reduce: 2 a step, 1 MiB'),
  ):
    assert words in told
  assert 'What helps' not in told


def test_what_does_not_fit_is_told_with_what_helps():
  step = {'fits': False, 'bytes': 2e11, 'programs': []}
  told = topology_text.lines({**FOUND, 'steps': {'plain': step}})
  assert 'DOES NOT FIT' in told and 'mesh.fsdp' in told
  step = {**STEP, 'bytes': 79e9}
  assert 'hardly fits' in topology_text.lines({**FOUND, 'steps': {'plain': step}})
  told = topology_text.lines({**FOUND, 'steps': {'private': {'fault': 'no lora'}}})
  assert 'would be refused: no lora' in told
