'use strict';
// Values of the page -> volumes of the server -> the viewer. Numbers of a NIfTI file are
// read here only to subtract two volumes: the server sends little-endian float32.

const $ = (id) => document.getElementById(id);
const state = {about: null, rows: [], scan: null, shown: null, kept: null, again: false};
let running = false, abort = null;

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error || `The server answered ${answer.status}; is it running?`);
}
const send = (path, body, signal) => ask(path, {
  method: 'POST', signal, body: JSON.stringify(body),
  headers: {'content-type': 'application/json'},
});

function tell(text, isError = false) {
  $('status').textContent = text;
  $('status').classList.toggle('error', isError);
}

function make(tag, options = {}, ...inside) {
  const node = Object.assign(document.createElement(tag), options);
  node.append(...inside);
  return node;
}

// Controls

const round = (value, span) => +(+value).toFixed(span > 20 ? 0 : span > 2 ? 1 : 3);

function choice(attribute, first) {
  const options = attribute.categories.map((category, i) => {
    const label = attribute.labels[i];
    return new Option(label === category ? label : `${category} ${label}`, category);
  });
  return make('select', {}, new Option(first, ''), ...options);
}

function row(attribute) {
  const span = attribute.high - attribute.low;
  const name = make('label', {htmlFor: `a-${attribute.name}`}, attribute.name);
  const own = make('span', {className: 'own', hidden: true}, 'in the scan');
  let control, ownInput, node;
  if (attribute.kind === 'categorical') {
    control = choice(attribute, 'unknown');
    control.show = () => { control.options[0].text = isEdit() ? 'as it is' : 'unknown'; };
    ownInput = choice(attribute, 'unknown');
    node = make('div', {className: 'row'}, name, control, own);
  } else {
    const step = round(span / 100, span / 100) || span / 100;
    control = make('input', {type: 'range', min: attribute.low, max: attribute.high,
      step: span > 20 ? 1 : step});
    const known = make('input', {type: 'checkbox', checked: true, title: 'known'});
    known.setAttribute('aria-label', `${attribute.name} is known`);
    const shown = make('output');
    const show = () => {
      node.classList.toggle('off', !known.checked);
      shown.textContent = known.checked
        ? `${round(control.value, span)} ${attribute.unit}` : isEdit() ? 'as it is' : 'unknown';
    };
    control.addEventListener('input', () => { known.checked = true; show(); });
    known.addEventListener('change', show);
    control.show = show;
    control.known = known;
    ownInput = make('input', {type: 'number', min: attribute.low, max: attribute.high,
      step: 'any', placeholder: 'unknown'});
    name.prepend(known, ' ');
    const ends = [attribute.low, attribute.high].map(
      (end) => make('span', {}, `${end} ${attribute.unit}`));
    node = make('div', {className: 'row'}, name, shown, control,
      make('span', {className: 'ends'}, ...ends), own);
  }
  control.id = `a-${attribute.name}`;
  ownInput.id = `own-${attribute.name}`;
  ownInput.setAttribute('aria-label', `${attribute.name} in the scan`);
  own.append(ownInput);
  return {attribute, control, own, ownInput, node};
}

function read(attribute, input) {
  if (input.known && !input.known.checked) return null;
  if (input.value === '') return null;
  return attribute.kind === 'categorical' ? input.value : +input.value;
}

function put(found, value) {
  const {control} = found;
  if (control.known) control.known.checked = value !== null && value !== undefined;
  if (value !== null && value !== undefined) control.value = value;
  else if (!control.known) control.value = '';
  if (control.show) control.show();
}

const collect = (which) => Object.fromEntries(state.rows.map(
  (found) => [found.attribute.name, read(found.attribute, found[which])]));
const isEdit = () => document.querySelector('input[name=mode]:checked').value === 'edit';

function question(quick) {
  const values = collect('control');
  if (isEdit()) return ['edit', {values, own: collect('ownInput')}];
  const asked = {values, quick, seed: +$('seed').value,
    guidance: +$('guidance').value, drift: +$('drift').value};
  if (!quick) asked.steps = +$('steps').value;
  return ['draw', asked];
}

// Volumes

// The settings of a drawn volume in words; the drift only where it was changed.
function chosen({seed, guidance, drift}) {
  const isOwn = drift === state.about.drift.default;
  return [`seed ${seed}`, `guidance ${guidance}`].concat(isOwn ? [] : [`drift ${drifted(drift)}`]);
}

async function fetchVolume(quick) {
  const [path, asked] = question(quick);
  const known = Object.entries(asked.values).filter(([, value]) => value !== null);
  const begun = performance.now();
  abort = new AbortController();
  const answer = await send(path, asked, abort.signal);
  const buffer = await answer.arrayBuffer();
  const seconds = (performance.now() - begun) / 1000;
  const text = (path === 'draw' ? chosen(asked) : ['edit'])
    .concat(known.map(([name, value]) => `${name} ${value}`)).join(', ');
  return {buffer, text, seconds, quick, path};
}

async function refresh() {
  state.again = true;
  $('status').dataset.done = 'false';
  if (abort) abort.abort();
  if (running) return;
  running = true;
  while (state.again) {
    state.again = false;
    try {
      if (isEdit() && !state.scan) {
        tell('Choose a scan.');
        continue;
      }
      if (isEdit()) {
        tell('Editing … (the first edit compiles for a while)');
        await show(await fetchVolume(false));
        continue;
      }
      tell('Drawing …');
      await show(await fetchVolume(true));
      await new Promise((done) => setTimeout(done, 350));
      if (!state.again) await show(await fetchVolume(false));
    } catch (error) {
      if (error.name !== 'AbortError') tell(error.message, true);
    }
  }
  running = false;
}

async function show(found) {
  if (state.again) return;
  state.shown = found;
  const how = found.path === 'edit' ? 'edited'
    : found.quick ? `quick: ${state.about.sample.quick_steps} steps, refining …`
    : `${$('steps').value} steps`;
  tell(`${how} in ${found.seconds.toFixed(2)} s`);
  $('download').disabled = false;
  await paint();
  // Not if something was changed while this was painted.
  if (!state.again) $('status').dataset.done = String(!found.quick);
}

function voxels(buffer) {
  const header = new DataView(buffer);
  const shape = [42, 44, 46].map((at) => header.getInt16(at, true));
  const count = shape[0] * shape[1] * shape[2];
  const start = header.getFloat32(108, true);
  return {shape: shape.join(), data: new Float32Array(buffer.slice(start, start + 4 * count)), start};
}

function range(buffer) {
  const {data} = voxels(buffer);
  const step = Math.max(1, Math.floor(data.length / 50000));
  const some = data.filter((_, i) => i % step === 0).sort();
  return [some[Math.floor(0.005 * some.length)], some[Math.floor(0.998 * (some.length - 1))]];
}

function subtract(one, other, least) {
  const a = voxels(one), b = voxels(other);
  if (a.shape !== b.shape) return null;
  const buffer = one.slice(0), out = new Float32Array(a.data.length);
  for (let i = 0; i < out.length; i++) out[i] = a.data[i] - b.data[i];
  new Uint8Array(buffer).set(new Uint8Array(out.buffer), a.start);
  const size = out.map(Math.abs).sort();
  const largest = size[Math.floor(0.999 * (size.length - 1))];
  // A change that nobody could see gets no full colour.
  return {buffer, isSeen: largest > 0, full: Math.max(largest, least)};
}

const viewers = {};

async function viewer(id) {
  if (viewers[id]) return viewers[id];
  const canvas = $(id).querySelector('canvas');
  if (!document.createElement('canvas').getContext('webgl2')) {
    canvas.replaceWith(make('p', {}, 'The viewer needs WebGL 2, which this browser does not offer. Volumes can still be downloaded.'));
    return (viewers[id] = {missing: true});
  }
  const nv = new niivue.Niivue({dragAndDropEnabled: false, show3Dcrosshair: true,
    backColor: [0, 0, 0, 1], crosshairColor: [0.42, 0.72, 0.82, 0.6], crosshairWidth: 0.3,
    loadingText: '', multiplanarLayout: 2, multiplanarShowRender: 1, isColorbar: false, isOrientCube: false});
  await nv.attachToCanvas(canvas);
  nv.setSliceType(+$('view').value);
  return (viewers[id] = {nv});
}

function clear({nv}) {
  while (nv && nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
}

async function load(id, images) {
  const {nv, missing} = await viewer(id);
  if (missing) return;
  clear({nv});
  for (const {buffer, ...look} of images) {
    nv.addVolume(await niivue.NVImage.loadFromUrl({url: 'volume.nii', name: 'volume.nii', buffer, ...look}));
  }
  nv.drawScene();
}

// One at a time: a viewer must not get the volumes of two paintings.
let painting = Promise.resolve();
function paint() {
  painting = painting.then(paintNow, paintNow);
  return painting;
}

async function paintNow() {
  const {shown, kept} = state;
  if (!shown) {
    Object.values(viewers).forEach(clear);
    for (const caption of document.querySelectorAll('figcaption')) caption.textContent = '';
    $('kept').hidden = $('drop').hidden = $('download').disabled = true;
    return;
  }
  const window = shown.path === 'edit' ? range((kept || shown).buffer) : [0, 1];
  const look = {colormap: 'gray', cal_min: window[0], cal_max: window[1]};
  const images = [{buffer: shown.buffer, ...look}];
  const change = kept && $('difference').checked ? subtract(shown.buffer, kept.buffer, 0.05 * (window[1] - window[0])) : null;
  const isSeen = change && change.isSeen;
  if (isSeen) {
    images.push({buffer: change.buffer, colormap: 'warm', colormapNegative: 'winter',
      cal_min: 0.1 * change.full, cal_max: change.full, opacity: +$('opacity').value});
  }
  $('shown').querySelector('figcaption').textContent = shown.text
    + (isSeen ? ` · difference: blue darker, orange brighter, full colour ±${change.full.toPrecision(2)}` : '');
  await load('shown', images);
  $('kept').hidden = !kept;
  $('drop').hidden = !kept || isEdit();
  if (!kept) return;
  $('kept').querySelector('figcaption').textContent = kept.text;
  await load('kept', [{buffer: kept.buffer, ...look}]);
  const [left, right] = [viewers.kept.nv, viewers.shown.nv];
  if (left && right) {
    left.broadcastTo(right, {'2d': true, '3d': true});
    right.broadcastTo(left, {'2d': true, '3d': true});
  }
}

async function download() {
  const packed = new Blob([state.shown.buffer]).stream().pipeThrough(new CompressionStream('gzip'));
  const url = URL.createObjectURL(await new Response(packed).blob());
  const name = state.shown.path === 'edit' ? 'synthetic_edit.nii.gz' : `synthetic_seed${$('seed').value}.nii.gz`;
  make('a', {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// What the user does

async function loadScan() {
  const file = $('file').files[0];
  if (!file) return;
  if (file.size > state.about.max_bytes) {
    tell(`The file has ${file.size} bytes, expected at most ${state.about.max_bytes}.`, true);
    return;
  }
  tell('Reading the scan …');
  $('status').dataset.done = 'false';
  try {
    const answer = await ask('scan', {method: 'POST', body: file});
    state.scan = {buffer: await answer.arrayBuffer(), text: `the scan: ${file.name}`, path: 'edit'};
    state.kept = state.shown = state.scan;
    $('forget').hidden = false;
    for (const found of state.rows) put(found, null);
    await paint();
    refresh();
  } catch (error) {
    forget(false);
    tell(error.message, true);
  }
}

async function forget(isTold = true) {
  state.scan = state.kept = state.shown = null;
  paint();
  $('file').value = '';
  $('forget').hidden = true;
  if (isTold) await ask('scan', {method: 'DELETE'});
  if (isTold) refresh();
}

async function changeMode() {
  const edit = isEdit();
  $('scan').hidden = !edit;
  $('sampling').hidden = edit;
  $('random').hidden = edit;
  $('keep').hidden = edit;
  for (const found of state.rows) {
    found.own.hidden = !edit;
    put(found, null);
  }
  if (!edit) await drawValues(0);
  state.kept = edit ? state.scan : null;
  state.shown = state.kept;
  paint();
  refresh();
}

async function drawValues(seed) {
  const values = await (await ask(`values?seed=${seed}`)).json();
  for (const found of state.rows) put(found, values[found.attribute.name]);
}

function showPrivacy() {
  const {privacy} = state.about;
  const text = [make('p', {className: privacy.private ? '' : 'alert'}, make('b', {}, privacy.headline))];
  for (const warning of privacy.warnings) text.push(make('p', {className: 'alert'}, warning));
  for (const [heading, paragraphs] of privacy.sections) {
    text.push(make('h3', {}, heading), ...paragraphs.map((paragraph) => make('p', {}, paragraph)));
  }
  $('privacy-text').replaceChildren(...text);
  $('privacy-file').textContent = JSON.stringify(privacy.file, null, 2);
  $('privacy').showModal();
}

// A drift of its own, or a factor of the one that the model was fine-tuned with.
function drifted(value) {
  const own = state.about.drift.value;
  if (own === null) return value.toFixed(2);
  return `× ${value.toFixed(2)}${typeof own === 'number' ? ` = ${(value * own).toPrecision(3)}` : ''}`;
}

function slider(id, limits, value, told) {
  Object.assign($(id), {min: limits[0], max: limits[1], value});
  const output = document.querySelector(`output[for=${id}]`);
  const shown = () => { output.textContent = told(+$(id).value); };
  $(id).addEventListener('input', shown);
  shown();
}

async function start() {
  const about = state.about = await (await ask('about')).json();
  document.title = `${about.name} · studio`;
  $('name').textContent = about.name;
  $('model').textContent = about.model;
  $('warning').textContent = about.warning;
  $('warning').hidden = !about.warning;
  state.rows = about.attributes.map(row);
  $('rows').replaceChildren(...state.rows.map(({node}) => node));
  const {sample, drift} = about;
  slider('guidance', sample.guidance_limits, sample.guidance, (value) => value.toFixed(1));
  slider('drift', drift.limits, drift.default, drifted);
  for (const steps of sample.steps_offered) $('steps').add(new Option(steps, steps));
  $('steps').value = sample.steps;
  await drawValues(0);
  tell('Compiling the model, up to a minute at its first start …');
  for (const figure of document.querySelectorAll('figure')) {
    const frame = make('div', {className: 'frame'});
    frame.append(figure.querySelector('canvas'));
    figure.prepend(frame);
  }
  refresh();
}

$('controls').addEventListener('input', (event) => {
  if (event.target.name !== 'mode' && event.target.id !== 'file') refresh();
});
$('controls').addEventListener('submit', (event) => event.preventDefault());
document.querySelectorAll('input[name=mode]').forEach(
  (radio) => radio.addEventListener('change', changeMode));
$('file').addEventListener('change', loadScan);
$('forget').addEventListener('click', () => forget());
$('random').addEventListener('click', async () => {
  await drawValues(Math.floor(Math.random() * 2 ** 31));
  refresh();
});
$('reseed').addEventListener('click', () => {
  $('seed').value = (+$('seed').value + 1) % 2 ** 31;
  refresh();
});
$('keep').addEventListener('click', () => { state.kept = state.shown; paint(); });
$('drop').addEventListener('click', () => { state.kept = null; paint(); });
$('difference').addEventListener('change', () => paint());
$('opacity').addEventListener('input', () => {
  const {nv} = viewers.shown || {};
  if (nv && nv.volumes.length > 1) nv.setOpacity(1, +$('opacity').value);
});
$('view').addEventListener('change', () => {
  for (const {nv} of Object.values(viewers)) if (nv) nv.setSliceType(+$('view').value);
});
$('download').addEventListener('click', download);
$('privacy-open').addEventListener('click', showPrivacy);
start().catch((error) => tell(error.message, true));
