"""Where the time of a run went: python benchmarks/run_summary.py WORKDIR.

One line of JSON from log.jsonl of the work folder: seconds of each stage, examples a
second of the trainings, and for the denoiser GFLOP an example, counted by XLA from the
lowered gradient, and with --peak_tflops the share of that rate (MFU).
"""

import argparse
import json
import os
import pathlib

os.environ['LDM_JAX_ONEDNN'] = '0'  # XLA does not count what a custom call does

import jax
import jax.numpy as jnp

from ldm_jax.config import loading
from ldm_jax.pipeline.run import Run
from ldm_jax.training import denoising_loss, networks, state


def stage_seconds(events):
  """{stage: seconds} of its last run that ended."""
  began, seconds = {}, {}
  for event in events:
    if event.get('event') == 'start':
      began[event['stage']] = event['time']
    elif event.get('event') == 'end' and event['stage'] in began:
      seconds[event['stage']] = round(event['time'] - began[event['stage']], 1)
  return seconds


def steps_per_second(events, stage):
  """Between the first and the last line of a training, without its compilation."""
  lines = [e for e in events if e['stage'] == stage and 'step' in e and 'time' in e]
  if len(lines) < 2 or lines[-1]['step'] <= lines[0]['step']:
    return None
  first, last = lines[0], lines[-1]
  return (last['step'] - first['step']) / (last['time'] - first['time'])


def gflop_per_example(run):
  """Of the denoiser's loss and its gradient."""
  shapes, latent_shape = networks.denoiser_shapes(run.config, run.schema)
  flat = state.flatten(shapes)
  losses = denoising_loss.configured_losses(run.config, run.denoiser, run.schedule)
  width = len(run.schema)

  def loss(flat, z, conditions, key):
    keys = jax.random.split(key, 1)
    return losses(state.unflatten(flat), z, conditions, keys).mean()

  z = jax.ShapeDtypeStruct((1, *latent_shape), jnp.float32)
  conditions = jax.ShapeDtypeStruct((1, width), jnp.float32)
  lowered = jax.jit(jax.grad(loss)).lower(flat, z, conditions, jax.random.key(0))
  return lowered.cost_analysis()['flops'] / 1e9


def summary(workdir, peak_tflops=None):
  """The figures of a finished run."""
  workdir = pathlib.Path(workdir)
  text = (workdir / 'log.jsonl').read_text()
  events = [json.loads(line) for line in text.splitlines()]
  config = loading.read(workdir / 'config.json')
  found = {'seconds': stage_seconds(events), 'examples_per_second': {}}
  for stage in ('autoencoder', 'diffusion'):
    rate = steps_per_second(events, stage)
    if rate is not None:
      examples = rate * config[stage].batch_size
      found['examples_per_second'][stage] = round(examples, 2)
  gflop = gflop_per_example(Run.open(config, workdir))
  found['denoiser_gflop_per_example'] = round(gflop, 3)
  rate = found['examples_per_second'].get('diffusion')
  if peak_tflops and rate:
    found['denoiser_mfu'] = round(rate * gflop / (1000 * peak_tflops), 4)
  return {**found, 'device': jax.devices()[0].device_kind, 'jax': jax.__version__}


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('workdir')
  parser.add_argument('--peak_tflops', type=float)
  parser.add_argument('--out')
  flags = parser.parse_args()
  line = json.dumps(summary(flags.workdir, flags.peak_tflops))
  print(line)
  if flags.out:
    pathlib.Path(flags.out).write_text(line + '\n')
