"""The whole pipeline through the command line, once, and what it leaves behind.

`finished` is the work folder of tests/micro.py. Tests that run further stages do so in
a copy of it.
"""

import base64
import contextlib
import csv
import functools
import gzip
import importlib.util
import io
import itertools
import json
import pathlib
import re
import shutil
import stat

import dp_accounting
import jax
import nibabel as nib
import numpy as np
import pytest
from dp_accounting import pld, rdp
from safetensors import safe_open

from ldm_jax import main, stages
from ldm_jax.data import cohorts_of_config
from ldm_jax.pipeline.runner import DEFAULT as STAGES
from ldm_jax.privacy import secret_key
from ldm_jax.report import privacy_statement
from ldm_jax.training import checkpoint

MICRO = pathlib.Path(__file__).with_name('micro.py')
LEDGER = 'ledger-private.jsonl'
UPSTREAM = '--stages=prepare,autoencoder,encode,diffusion,adapt'


def micro():
  spec = importlib.util.spec_from_file_location('micro', MICRO)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def run(work, *flags):
  return main.main([f'--config={MICRO}', f'--workdir={work}', *flags])


def read(path):
  return json.loads(path.read_text())


def rows(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def events(work):
  return [json.loads(line) for line in (work / 'log.jsonl').read_text().splitlines()]


def files(work):
  return {path: path.stat().st_mtime_ns for path in work.rglob('*') if path.is_file()}


@pytest.fixture
def copy(finished, tmp_path):
  """A copy of the finished folder: everything is up to date in it."""
  return shutil.copytree(finished, tmp_path / 'work')


@pytest.fixture
def unspent(finished, tmp_path):
  """A copy before the stage `adapt`, with an empty ledger."""
  ignore = shutil.ignore_patterns(f'{LEDGER}*', 'adapt', 'privacy.json')
  return shutil.copytree(finished, tmp_path / 'work', ignore=ignore)


@pytest.fixture(scope='module')
def examined(tmp_path_factory):
  """(work folder, what was printed) of the stage doctor alone."""
  work, printed = tmp_path_factory.mktemp('doctor') / 'work', io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert run(work, '--stages=doctor') == 0
  return work, printed.getvalue()


@pytest.fixture
def untrained(monkeypatch):
  """Stages that train the public model are not to be reached."""

  def reached(config, workdir):
    raise AssertionError('a stage that trains was reached')

  for name in ('autoencoder', 'diffusion'):
    monkeypatch.setitem(stages.STAGES, name, reached)


# What lies in the folder


def test_every_file_of_the_contract_is_there(finished):
  for name in (
    'config.json',
    'log.jsonl',
    'store',
    'tensorboard',
    'privacy.json',
    'samples/samples.csv',
    'counterfactuals/counterfactuals.csv',
    'metrics.json',
    'report/index.html',
    *(f'checkpoints/{stage}/done.json' for stage in STAGES),
  ):
    assert (finished / name).exists(), name
  done = [event['stage'] for event in events(finished) if event.get('event') == 'end']
  assert done == list(STAGES)


def test_the_privacy_statement_has_the_keys_of_the_contract(finished):
  content = read(finished / 'privacy.json')
  assert set(content) >= {
    'unit',
    'relation',
    'epsilon',
    'delta',
    'num_patients',
    'releases',
    'accountants',
    'randomness',
    'assumptions',
    'not_covered',
    'code_version',
    'config_sha256',
  }
  assert content['unit'] == 'patient'
  assert content['relation'] == 'add_or_remove_one'
  assert content['num_patients'] == micro().PATIENTS['private']
  assert content['config_sha256'] and re.fullmatch(
    '[0-9a-f]{64}', content['config_sha256']
  )
  (release,) = content['releases']
  assert set(release) >= {
    'name',
    'mechanism',
    'noise_multiplier',
    'sampling_probability',
    'steps',
    'clip_norm',
    'epsilon',
  }
  assert 'FIXED SEED' in content['randomness']
  assert content['demonstration_only'] is True and content['private'] is False
  assert release['randomness'] == 'fixed seed'
  assert set(content['accountants']) == {'pld', 'rdp'}


def test_epsilon_can_be_recomputed_from_the_statement_by_other_code(finished):
  content = read(finished / 'privacy.json')
  (release,) = content['releases']
  one_step = dp_accounting.PoissonSampledDpEvent(
    release['sampling_probability'],
    dp_accounting.GaussianDpEvent(release['noise_multiplier']),
  )
  event = dp_accounting.SelfComposedDpEvent(one_step, release['steps'])
  relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
  found = {
    'pld': pld.PLDAccountant(relation, value_discretization_interval=1e-4),
    'rdp': rdp.RdpAccountant(neighboring_relation=relation),
  }
  for name, accountant in found.items():
    epsilon = accountant.compose(event).get_epsilon(content['delta'])
    assert epsilon == pytest.approx(content['accountants'][name], rel=2e-3)
  config = read(finished / 'config.json')['adapt']
  assert content['epsilon'] == content['accountants']['pld']
  assert content['epsilon'] <= config['privacy']['epsilon'] * 1.001
  assert release['steps'] == config['steps']
  patients = content['num_patients']
  assert release['sampling_probability'] * patients == config['privacy']['batch_size']


def test_samples_are_volumes_on_the_true_grid_with_their_requests(finished):
  module = micro()
  table = rows(finished / 'samples' / 'samples.csv')
  assert len(table) == module.get_config().sample.num
  assert {'id', 'seed', 'LVEDV', 'ESED', 'AGE', 'requests'} <= set(table[0])
  for row in table:
    image = nib.load(finished / 'samples' / f'{row["id"]}.nii.gz')
    assert image.shape == module.SHAPE[::-1]
    np.testing.assert_allclose(image.header.get_zooms(), module.SPACING_MM[::-1])
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)
    assert nib.aff2axcodes(image.affine) == ('R', 'A', 'S')
    assert np.isfinite(image.get_fdata()).all()
  assert len(list((finished / 'samples').glob('*.nii.gz'))) == len(table)


def test_counterfactuals_lie_on_the_grid_of_their_source(finished):
  records = {
    record.id: record
    for record in cohorts_of_config.cohorts(micro().get_config().data)['public'].records
  }
  table = rows(finished / 'counterfactuals' / 'counterfactuals.csv')
  assert len(table) == 2
  for row in table:
    source, _ = records[row['id']].source.read()
    images = {
      kind: nib.load(finished / 'counterfactuals' / f'{row["id"]}_{kind}.nii.gz')
      for kind in ('source', 'counterfactual', 'difference')
    }
    for image in images.values():
      assert image.shape == source.array.shape[::-1]
      corner = image.affine @ [0, 0, 0, 1]
      np.testing.assert_allclose(corner, source.affine @ [0, 0, 0, 1], atol=1e-3)
    difference = images['counterfactual'].get_fdata() - images['source'].get_fdata()
    np.testing.assert_allclose(images['difference'].get_fdata(), difference, atol=1e-4)
    asked = float(row['requested_LVEDV']) - float(row['source_LVEDV'])
    assert asked == pytest.approx(20, abs=0.01)


def test_the_metrics_have_the_keys_of_the_contract_with_counts_and_intervals(finished):
  metrics = read(finished / 'metrics.json')
  assert set(metrics) >= {
    'frechet',
    'kid',
    'two_sample',
    'ms_ssim',
    'control',
    'memorisation',
    'causal',
    'baseline_real_real',
    'features',
    'reconstruction',
  }
  assert set(metrics['ms_ssim']) == {'real', 'synthetic'}
  assert {'pearson_r', 'mae', 'n'} <= set(metrics['control']['LV_volume'])
  assert re.fullmatch('[0-9a-f]{64}', metrics['features']['sha256'])
  for entry in (metrics['frechet'], metrics['kid'], metrics['reconstruction']['psnr']):
    assert entry['low'] <= entry['value'] <= entry['high']
    assert entry['internal'] is True, 'it looks at private patients'
    assert any(key.startswith('n') for key in entry)
    assert entry['reads'] == ['test']
  told_apart = metrics['two_sample']
  for entry in (told_apart, told_apart['real_halves']):
    assert entry['internal'] is True and entry['reads'] == ['test']
  assert told_apart['auc_low'] <= told_apart['auc'] <= told_apart['auc_high']
  assert told_apart['real_halves']['auc'] is None, 'four patients are too few to halve'
  assert 'internal' not in metrics['ms_ssim']['synthetic']


def test_the_report_needs_nothing_but_itself(finished):
  page = (finished / 'report' / 'index.html').read_text()
  links = re.findall(r'(?:src|href)="([^"]*)"', page)
  beside = [link for link in links if not link.startswith(('data:', '#'))]
  assert len(beside) < len(links)
  # Only the other pages of its folder are named, and nothing of them is loaded.
  assert all((finished / 'report' / link).is_file() for link in beside)
  assert not any(link in page.partition('</head>')[0] for link in beside)
  assert "default-src 'none'" in page
  assert 'Demonstration only' in page


# What must not lie in the folder


def test_nothing_about_private_patients_is_logged(finished):
  mine = [event for event in events(finished) if event['stage'] == 'adapt']
  steps = [event for event in mine if 'step' in event]
  # One line: times between steps would tell how many patients were drawn.
  (event,) = steps
  assert set(event) == {'time', 'stage', 'step', 'steps_per_second'}
  assert event['step'] == micro().get_config().adapt.steps
  boards = list((finished / 'tensorboard' / 'adapt').iterdir())
  assert boards
  for board in boards:
    assert b'steps_per_second' in board.read_bytes()
    assert b'loss' not in board.read_bytes()
  public = (finished / 'tensorboard' / 'diffusion').iterdir()
  assert all(b'loss' in board.read_bytes() for board in public)


def contents(work):
  """(path, bytes) of every file, those inside compressed files and checkpoints too."""
  for path in files(work):
    content = path.read_bytes()
    yield path, content
    if path.suffix == '.gz':
      yield path, gzip.decompress(content)
    elif path.suffix == '.npz':
      with np.load(path) as arrays:
        yield from ((path, arrays[name].tobytes()) for name in arrays.files)
  for stage in ('autoencoder', 'diffusion', 'adapt'):
    folder = work / 'checkpoints' / stage
    for leaf in jax.tree.leaves(checkpoint.load_params(folder)):
      yield folder, np.asarray(leaf).tobytes()


def spellings(words):
  """How a key of 32-bit words may stand in a file: raw, hexadecimal, base64."""
  words, found = np.asarray(words, np.uint32), set()
  for raw in (words.astype('<u4').tobytes(), words.astype('>u4').tobytes()):
    texts = (raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode())
    found |= {raw, *(text.encode() for text in texts)}
  return found


def numbers(words):
  """How it may stand as decimal numbers: each word, signed too, and all together."""
  words = np.asarray(words, np.uint32)
  found = {*words.tolist(), *(words.astype(np.int64) - 2**32).tolist()}
  for kind in ('<u4', '>u4'):
    raw = words.astype(kind).tobytes()
    found |= {int.from_bytes(raw, 'little'), int.from_bytes(raw, 'big')}
  return {str(number).encode() for number in found}


def test_the_noise_key_is_gone_and_no_file_holds_it_in_any_spelling(finished):
  assert not list(finished.rglob('*noise_key*'))
  config = micro().get_config().adapt
  key = secret_key.new_noise_key(config.privacy.seed)
  words = numbers(jax.random.key_data(key))
  steps = [jax.random.fold_in(key, step) for step in range(config.steps)]
  for each in (key, *steps):  # who has a step's key removes the noise of that step
    words |= spellings(jax.random.key_data(each))
  words |= spellings(np.frombuffer(secret_key.sampling_secret(key), '<u4'))
  pattern = re.compile(b'|'.join(map(re.escape, words)))
  num = 0
  for path, content in contents(finished):
    assert not pattern.search(content), path
    num += 1
  assert num > 100


def test_the_search_for_the_key_finds_it_where_it_is(tmp_path):
  words = jax.random.key_data(secret_key.new_noise_key(0)).tolist()
  for number, text in enumerate((json.dumps(words), bytes(np.uint32(words)).hex())):
    with gzip.open(tmp_path / f'{number}.gz', 'wt') as file:
      file.write(text)
    content = gzip.decompress((tmp_path / f'{number}.gz').read_bytes())
    assert any(word in content for word in spellings(words) | numbers(words))


def test_the_key_file_is_for_its_owner_alone_while_it_is_needed(unspent, monkeypatch):
  modes = []

  def killed(sampler, step):
    modes.extend(path.stat().st_mode for path in unspent.rglob('noise_key'))
    raise KeyboardInterrupt

  monkeypatch.setattr('ldm_jax.privacy.sampling.PoissonSampler.draw', killed)
  assert run(unspent) == 130
  assert [stat.S_IMODE(mode) for mode in modes] == [0o600]


# Attributes of real patients

NUMBER = re.compile(r'(?<![\w.])-?\d+\.\d+(?![\w.])')
# As many numbers as the longest row has, source and request of all attributes.
WINDOW = 32


def digits(text):
  return len(text.lstrip('-').replace('.', '').strip('0'))


@functools.cache
def patients():
  """(cohort, record, values of its continuous attributes with four or more digits)."""
  found = []
  for name, cohort in cohorts_of_config.cohorts(micro().get_config().data).items():
    for record in cohort.records:
      values = [v for v in record.attributes.values() if digits(str(v)) >= 4]
      assert len(values) >= 4, 'too few digits to be known again'
      found.append((name, record.id, values))
  return found


def pairs(text):
  """Records of which two exact attribute values stand near each other in a text.

  A number that was rounded to four digits or more counts as the value.
  """
  text = re.sub(r'data:image/png;base64,[\w+/=]*', '', text)
  found, tokens = set(), [t for t in NUMBER.findall(text) if digits(t) >= 4]
  places = {}
  for place, token in enumerate(tokens):
    places.setdefault(token, []).append(place)
  decimals = {len(token.partition('.')[2]) for token in places if len(token) < 12}
  for cohort, record, values in patients():
    seen = {}
    for index, value in enumerate(values):
      spelt = {f'{value:.{n}f}' for n in decimals} & set(places)
      seen[index] = [place for token in spelt for place in places[token]]
    for first, second in itertools.combinations(seen, 2):
      if values[first] != values[second] and any(
        abs(a - b) < WINDOW for a in seen[first] for b in seen[second]
      ):
        found.add((cohort, record))
  return found


def shown(work):
  """Path -> text of what a run makes to be read or passed on."""
  found = [*(work / 'report').iterdir(), *work.glob('*.json'), *work.glob('*.jsonl')]
  found += work.glob('samples/*.csv')
  return {path.relative_to(work): path.read_text() for path in found}


def test_no_page_and_no_table_holds_two_attributes_of_a_patient(finished, examined):
  texts = shown(finished)
  assert {str(path) for path in texts} >= {
    *('samples/samples.csv', 'metrics.json', 'privacy.json', 'log.jsonl'),
    *('report/index.html', 'report/model_card.md', 'report/autoencoder.html'),
  }
  texts |= {'doctor': (examined[0] / 'report' / 'doctor.html').read_text()}
  for path, text in texts.items():
    assert not pairs(text), path
  values = {np.float32(v).tobytes() for *_, own in patients() for v in own}
  for board in (finished / 'tensorboard').rglob('*tfevents*'):
    content = board.read_bytes()
    assert sum(value in content for value in values) < 2, board


def test_no_file_that_may_leave_names_a_private_patient_or_holds_a_scan(finished):
  kept, words = ('store', 'checkpoints'), set()
  for name, cohort in cohorts_of_config.cohorts(micro().get_config().data).items():
    if name in ('private', 'test'):
      words |= {record.id.encode() for record in cohort.records}
      words |= {patient.encode() for patient in cohort.patients}
  for path in (finished / 'store' / 'volumes').iterdir():
    if path.suffix == '.safetensors' and _is_private(finished, path.stem):
      with safe_open(path, 'numpy') as file:
        voxels = file.get_tensor('array')
      words.add(voxels[len(voxels) // 2, voxels.shape[1] // 2].tobytes())
  pattern, num = re.compile(b'|'.join(map(re.escape, words))), 0
  for path, content in contents(finished):
    if path.relative_to(finished).parts[0] in kept:
      num += bool(pattern.search(content))
    else:
      assert not pattern.search(content), path
  assert num > 10, 'the search finds what stays'


def _is_private(work, key):
  names = [work / 'store' / f'{name}.json' for name in ('private', 'test')]
  return any(key in path.read_text() for path in names)


def test_no_picture_of_a_page_has_a_private_patient_beside_it(finished):
  page = (finished / 'report' / 'index.html').read_text()
  for cohort, record, _ in patients():
    assert cohort == 'public' or record not in page, record


def test_counterfactuals_are_of_public_patients_and_say_so(finished):
  path = finished / 'counterfactuals' / 'counterfactuals.csv'
  table = rows(path)
  held = pairs(path.read_text())
  assert {row['id'] for row in table} <= {record for _, record in held}
  assert {cohort for cohort, _ in held} == {'public'}
  for row in table:
    assert row['cohort'] == 'public' and row['internal'] == 'False'
    assert 'real public patients' in row['attributes']
  page = (finished / 'report' / 'index.html').read_text()
  assert 'Edits of scans of real public patients' in page


def test_requests_of_public_patients_are_found_and_said_wherever_they_are_shown(
  copy, capsys
):
  asked = '--config.sample.requests=public'
  assert run(copy, asked, '--stages=sample,report') == 2, 'metrics of other samples'
  assert 'Run --stages=evaluate,report again' in capsys.readouterr().err
  # The samples say whose values they were asked for; the config of a later command
  # does not decide it.
  assert run(copy, '--stages=evaluate,report') == 0
  path = copy / 'samples' / 'samples.csv'
  held = pairs(path.read_text())
  assert {cohort for cohort, _ in held} == {'public'}
  assert len(held) >= len(rows(path)) / 2, 'the search finds what is there'
  assert all('real public patients' in row['requests'] for row in rows(path))
  for name in ('index.html', 'model_card.md'):
    text = (copy / 'report' / name).read_text()
    assert 'attribute values of real public patients' in text
    assert not pairs(text)


def test_a_table_of_private_patients_trains_nothing(copy, untrained, capsys):
  cohort = cohorts_of_config.cohorts(micro().get_config().data)['private']
  table = copy / 'asked.csv'
  with open(table, 'w', newline='') as file:
    writer = csv.DictWriter(file, list(cohort.records[0].attributes))
    writer.writeheader()
    writer.writerows(record.attributes for record in cohort.records)
  assert run(copy, f'--config.sample.requests={table}') == 2
  error = capsys.readouterr().err
  assert 'records of patients of data.private' in error and 'uniform' in error


# Running it again


def test_a_second_run_does_nothing(copy, capsys):
  before = files(copy)
  assert run(copy) == 0
  printed = capsys.readouterr().out
  assert [f'{stage}: up to date' for stage in STAGES] == printed.splitlines()[:-1]
  assert printed.splitlines()[-1].endswith('report/index.html')
  assert files(copy) == before


def test_another_number_of_samples_reruns_sample_and_what_builds_on_it(copy, capsys):
  before = files(copy / 'checkpoints' / 'counterfactual')
  assert run(copy, '--config.sample.num=8') == 0
  printed = capsys.readouterr().out
  fresh = [stage for stage in STAGES if f'{stage}: up to date' not in printed]
  assert fresh == ['sample', 'evaluate', 'report']
  assert files(copy / 'checkpoints' / 'counterfactual') == before
  assert len(rows(copy / 'samples' / 'samples.csv')) == 8


def test_doctor_inspects_and_trains_nothing(examined):
  work, printed = examined
  assert 'Cohort private: 6 patients [INTERNAL]' in printed
  assert not (work / 'checkpoints').exists()
  assert read(work / 'doctor' / 'public.json')['counts']['patients'] == 6


# Privacy over several runs in one folder


def test_a_spent_budget_refuses_another_run_before_anything_is_trained(
  copy, untrained, capsys
):
  ledger = (copy / 'store' / LEDGER).read_bytes()
  assert run(copy, '--config.adapt.steps=7') == 2
  error = capsys.readouterr().err
  assert 'have spent epsilon' in error and 'adapt.privacy.epsilon' in error
  assert (copy / 'store' / LEDGER).read_bytes() == ledger


def test_use_without_privacy_makes_epsilon_infinite_for_good(copy, capsys):
  flags = ('--config.adapt.steps=2', UPSTREAM)
  assert run(copy, '--config.adapt.privacy=None', *flags) == 0
  content = read(copy / 'privacy.json')
  assert content['epsilon'] == 'inf'
  assert [release['epsilon'] for release in content['releases']][1:] == ['inf']
  assert content['releases'][1]['noise_multiplier'] == 0
  assert any('THE MODEL ITSELF' in entry for entry in content['not_covered'])
  assert 'no noise' in content['randomness']
  assert privacy_statement.statement(content).private is False
  steps = [e for e in events(copy) if e['stage'] == 'adapt' and 'loss' in e]
  assert len(steps) == 2
  assert all(event['internal'] for event in steps)
  capsys.readouterr()
  assert run(copy, '--config.adapt.privacy.epsilon=100', *flags) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert 'without noise' in error and '--workdir' in error
  assert read(copy / 'privacy.json')['epsilon'] == 'inf'


def test_internal_losses_are_logged_only_when_asked_for_and_then_marked(unspent):
  flags = ('--config.adapt.steps=2', '--config.adapt.privacy.log_internal=true')
  assert run(unspent, *flags, UPSTREAM) == 0
  steps = [e for e in events(unspent) if e['stage'] == 'adapt' and 'loss' in e]
  assert [event['step'] for event in steps] == [1, 2]
  assert all(event['internal'] for event in steps)
  content = read(unspent / 'privacy.json')
  assert any('log_internal' in entry for entry in content['not_covered'])
