"""Laws of the phases of a sweep; with `launch/sweep.py` they are in test_sweep.py."""

import pytest

from ldm_jax.commands import arm_jobs


def test_phases_follow_from_what_the_arms_share():
  arms = {
    'a': {'adapt.seed': 1},
    'b': {'adapt.seed': 1, 'sample.seed': 2},
    'c': {'diffusion.steps': 5},
  }
  found = {phase.name: phase for phase in arm_jobs.phases(arms, records=True)}
  assert list(found) == ['base', 'own', 'record', 'first', 'later', 'table']
  assert found['own'].arms == ('c',) and found['first'].arms == ('a', 'c')
  assert found['later'].arms == ('b',) and found['table'].any_end
  names = [phase.name for phase in arm_jobs.phases({'a': {}}, records=False)]
  assert names == ['base', 'first', 'table']
  task_of = arm_jobs.task_of
  phases = list(found.values())
  assert task_of('first', phases, {'SLURM_ARRAY_TASK_ID': '1'}) == ('first', 'c')
  assert task_of('later:0', phases, {}) == ('later', 'b')
  assert task_of('table', phases, {}) == ('table', '')
  for wrong in ('first', 'first:2', 'last'):
    with pytest.raises(ValueError, match='--task'):
      task_of(wrong, phases, {})


def test_a_phase_that_failed_ends_the_sweep_but_not_the_table():
  done = []

  def do(phase, arm):
    done.append((phase, arm))
    return 3 if arm == 'b' else 0

  arms = {'a': {'adapt.seed': 1}, 'b': {'adapt.seed': 2}, 'c': {'seed': 3}}
  phases = [*arm_jobs.phases(arms, False), arm_jobs.Phase('after')]
  assert arm_jobs.side_by_side(phases, do, 2) == 3
  assert done[:2] == [('base', ''), ('own', 'c')]
  assert sorted(done[2:5]) == [('first', 'a'), ('first', 'b'), ('first', 'c')]
  assert done[5:] == [('table', '')]
