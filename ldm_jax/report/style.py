"""Style sheet and slice viewer script of the report page; both stand inline."""

STYLE = """
:root { --ink: #1f2933; --muted: #5c6b7a; --line: #dde3e9; --soft: #f4f6f8;
  --accent: #1f6f8b; --warn: #8f3b12; --warn-soft: #fdf1ea; --good: #2f6b3c;
  --good-soft: #eef6ef; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif; }
main, header, footer, nav ul { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 22px; margin: 0 0 12px; }
h3 { font-size: 16px; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 75ch; }
section { padding: 28px 0; border-top: 1px solid var(--line); scroll-margin-top: 44px; }
section:first-of-type { border-top: 0; }
nav { position: sticky; top: 0; z-index: 2; background: #fffffff2; margin-top: 16px;
  border-block: 1px solid var(--line); }
nav ul { display: flex; gap: 4px 20px; overflow-x: auto; list-style: none;
  white-space: nowrap; font-size: 14px; }
nav a { display: block; padding: 9px 0; color: var(--accent); text-decoration: none; }
a { color: var(--accent); }
nav a:hover { text-decoration: underline; }
.muted, figcaption, small { color: var(--muted); }
.cards { display: grid; gap: 12px; margin: 16px 0;
  grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.card .name { font-size: 13px; color: var(--muted); }
.card .value { font-size: 26px; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.card .note { font-size: 13px; color: var(--muted); }
.notice { border-left: 4px solid var(--accent); background: var(--soft);
  padding: 12px 16px; border-radius: 0 6px 6px 0; margin: 12px 0; }
.notice p:last-child { margin: 0; }
.notice.warn { border-color: var(--warn); background: var(--warn-soft); }
.notice.good { border-color: var(--good); background: var(--good-soft); }
.banner { background: #b3141b; color: #fff; font-weight: 600; padding: 14px 24px;
  text-align: center; }
.badge { display: inline-block; font-size: 11px; line-height: 1; padding: 3px 6px;
  border-radius: 4px; background: var(--warn-soft); color: var(--warn);
  border: 1px solid currentColor; vertical-align: 2px; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; margin: 8px 0 16px; }
th, td { text-align: left; padding: 7px 14px 7px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--muted); font-size: 13px; }
td:first-child { font-weight: 600; }
td small { font-weight: 400; display: block; }
.num { white-space: nowrap; }
figure { margin: 16px 0 24px; }
figcaption { font-size: 14px; margin-bottom: 6px; }
figcaption b { color: var(--ink); }
figure img { display: block; width: 100%; height: auto; }
.panels { display: grid; gap: 8px 24px; margin: 12px 0 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
.panels figure { margin: 0; max-width: 360px; }
.tiles { min-width: min(100%, 520px); }
.columns { display: grid; grid-template-columns: repeat(var(--n), 1fr);
  text-align: center; font-size: 13px; color: var(--muted); padding-top: 4px;
  font-variant-numeric: tabular-nums; }
.rows { display: flex; gap: 10px; }
.rows .labels { display: grid; grid-auto-rows: 1fr; font-size: 13px;
  color: var(--muted); align-items: center; flex: none; }
.rows img { min-width: 0; flex: 1; }
.viewer { display: grid; grid-template-columns: minmax(0, 420px) minmax(200px, 1fr);
  gap: 24px; align-items: start; border: 1px solid var(--line); border-radius: 8px;
  padding: 16px; }
.viewer canvas { width: 100%; background: #000; border-radius: 4px; display: block; }
.viewer label { display: block; font-size: 14px; margin-bottom: 14px; }
.viewer select, .viewer input { width: 100%; margin-top: 4px; font: inherit;
  accent-color: var(--accent); }
.viewer select { padding: 6px; border: 1px solid var(--line); border-radius: 6px;
  background: #fff; color: inherit; }
pre { background: var(--soft); padding: 14px; border-radius: 6px; overflow-x: auto;
  font-size: 12.5px; line-height: 1.45; }
summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
ul.plain { padding-left: 20px; margin: 0 0 12px; max-width: 75ch; }
footer { padding-block: 24px 48px; font-size: 13px; color: var(--muted);
  border-top: 1px solid var(--line); }
@media (max-width: 640px) {
  main, header, footer, nav ul { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 24px; } h1 { font-size: 24px; } section { padding: 22px 0; }
  .cards { grid-template-columns: 1fr 1fr; gap: 8px; }
  .card { padding: 10px 12px; } .card .value { font-size: 21px; }
  .viewer { grid-template-columns: 1fr; padding: 12px; gap: 14px; }
  .wide { min-width: 600px; } .stack thead { display: none; }
  .stack tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  .stack td { display: block; border: 0; padding: 1px 0; white-space: normal; }
  .stack td[data-name]:not(:empty)::before { content: attr(data-name) ': ';
    color: var(--muted); }
}
@media print {
  body { font-size: 10.5pt; } nav, .viewer { display: none; }
  section { padding: 14pt 0; } figure, .card, tr, .notice { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .wide { min-width: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

SCRIPT = """
for (const viewer of document.querySelectorAll('.viewer')) {
  const canvas = viewer.querySelector('canvas');
  const context = canvas.getContext('2d');
  const choice = viewer.querySelector('select');
  const slider = viewer.querySelector('input');
  const place = viewer.querySelector('output');
  const draw = () => {
    const option = choice.selectedOptions[0];
    const sheet = document.getElementById(option.dataset.sheet);
    const {width, height, depth} = sheet.dataset;
    const w = +width, h = +height;
    slider.max = depth - 1;
    const slice = +slider.value;
    canvas.width = w; canvas.height = h;
    canvas.style.aspectRatio = w + ' / ' + h;
    context.drawImage(sheet, slice * w, option.dataset.row * h, w, h, 0, 0, w, h);
    place.textContent = (slice + 1) + ' of ' + depth;
  };
  const middle = () => {
    const option = choice.selectedOptions[0];
    const depth = +document.getElementById(option.dataset.sheet).dataset.depth;
    slider.max = depth - 1;
    slider.value = Math.floor(depth / 2);
  };
  choice.addEventListener('change', draw);
  slider.addEventListener('input', draw);
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    slider.value = +slider.value + Math.sign(event.deltaY);
    draw();
  }, {passive: false});
  const sheets = [...viewer.querySelectorAll('img')];
  Promise.all(sheets.map((sheet) => sheet.decode())).then(() => { middle(); draw(); });
}
"""
