"""Layer 8: what the page of an audit can do: the map, the tool tips, the searchable tables."""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPT"]

SCRIPT: Final = """
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');
const ENTITIES = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'};
const esc = (text) => String(text).replace(/[&<>"]/g, (c) => ENTITIES[c]);
const NAMES = ['no metadata', 'unproven', 'refuted', 'proven', 'padding', 'data'];
const STACK = [2, 1, 0, 3, 5, 4];

// The map: one cell for each stretch of text, its kinds stacked from the bottom, what is rare made visible.
const map = $('map'), tip = $('tip');
let places = [];
function tones() {
  const style = getComputedStyle(document.documentElement);
  return ['--none', '--unproven', '--refuted', '--proven', '--pad', '--data'].map((n) => style.getPropertyValue(n));
}
function drawCell(pen, colors, counts, x, y, size) {
  const total = counts.reduce((a, b) => a + b, 0);
  if (!total) return;
  const heights = counts.map((n) => n / total * size);
  for (const rare of [2, 1, 0]) if (counts[rare]) heights[rare] = Math.max(heights[rare], size * .34);
  const spare = heights.reduce((a, b) => a + b, 0);
  let at = y + size;
  for (const kind of STACK) {
    if (!counts[kind]) continue;
    const high = heights[kind] / spare * size;
    at -= high;
    pen.fillStyle = colors[kind];
    pen.fillRect(x, at, size, high + .5);
  }
}
function drawMap() {
  const wide = map.clientWidth, ratio = window.devicePixelRatio || 1, left = wide < 640 ? 0 : 184;
  const pitch = 9, size = 8, across = Math.max(Math.floor((wide - left) / pitch), 8);
  places = [];
  let y = 2;
  for (const [index, region] of data.regions.entries()) {
    const rows = Math.ceil(region.cells.length / across);
    places.push({index, x: left, y, across, rows});
    y += (left ? 0 : 16) + Math.max(rows * pitch, left ? 15 : 0) + 9;
  }
  map.style.height = y + 'px';
  map.width = Math.round(wide * ratio);
  map.height = Math.round(y * ratio);
  const pen = map.getContext('2d'), colors = tones(), soft = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  pen.font = '12px ' + getComputedStyle(document.body).fontFamily;
  for (const place of places) {
    const region = data.regions[place.index];
    pen.fillStyle = soft.getPropertyValue('--soft');
    if (!left) place.y += 16;
    pen.fillText(region.name, 0, left ? place.y + 10 : place.y - 4);
    region.cells.forEach((counts, k) => {
      const x = place.x + k % across * pitch, row = place.y + Math.floor(k / across) * pitch;
      drawCell(pen, colors, counts, x, row, size);
    });
  }
}
function cellAt(event) {
  const box = map.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  for (const place of places) {
    const column = Math.floor((x - place.x) / 9), row = Math.floor((y - place.y) / 9);
    if (column < 0 || column >= place.across || row < 0 || row >= place.rows) continue;
    const region = data.regions[place.index], k = row * place.across + column;
    if (k < region.cells.length) return {region, k};
  }
  return null;
}
const low = (hit) => BigInt(hit.region.start) + BigInt(hit.k * data.cell);
const hex = (n) => '0x' + n.toString(16).padStart(16, '0');
map.addEventListener('mousemove', (event) => {
  const hit = cellAt(event);
  tip.style.opacity = hit ? 1 : 0;
  if (!hit) return;
  const counts = hit.region.cells[hit.k];
  const said = STACK.filter((k) => counts[k]).map((k) => number.format(counts[k]) + ' ' + NAMES[k]).join(', ');
  tip.innerHTML = '<b>' + esc(hit.region.name) + '</b> <code>' + hex(low(hit)) + '</code><br>' +
    esc(hit.region.names[hit.k]) + '<br>' + said + ' instructions';
  tip.style.left = Math.min(event.clientX + 14, innerWidth - 390) + 'px';
  tip.style.top = event.clientY + 16 + 'px';
});
map.addEventListener('mouseleave', () => { tip.style.opacity = 0; });
map.addEventListener('click', (event) => {
  const hit = cellAt(event);
  if (!hit) return;
  range = [low(hit), low(hit) + BigInt(data.cell)];
  refresh(true);
  $('findings').scrollIntoView();
});

// The findings: filtered here, a page at a time.
let range = null, shown = 100;
const share = (some, all) => number.format(some.length) + ' of ' + number.format(all.length);
function matches(finding) {
  const [code, address, symbol, , source, message] = finding;
  const info = data.codes[code];
  if ($('code').value && info.code !== $('code').value) return false;
  if ($('owner').value && info.owner !== $('owner').value) return false;
  if ($('level').value && info.severity !== $('level').value) return false;
  if (range && (BigInt(address) < range[0] || BigInt(address) >= range[1])) return false;
  const words = $('search').value.toLowerCase().split(/\\s+/).filter(Boolean);
  const text = [info.code, address, symbol, source, message].join(' ').toLowerCase();
  return words.every((word) => text.includes(word));
}
function listing(lines) {
  return '<pre class="asm">' + lines.map(([offset, text, row, verdict, mark]) => {
    if (offset === null) return '<div>   …</div>';
    const sign = {'>': '▸', 'e': '→'}[mark] || ' ';
    const at = '+0x' + offset.toString(16);
    const style = (verdict === 'proven' ? '' : verdict) + (mark === '>' ? ' hit' : '');
    return '<div' + (style ? ' class="' + style + '"' : '') + '>' + sign + ' ' + at.padStart(8) + '  ' +
      esc(text.padEnd(46)) + (row ? ' <s>' + esc(row) + '</s>' : '') + '</div>';
  }).join('') + '</pre>';
}
const advice = (lines) =>
  lines.length ? '<pre class="asm">' + lines.map((line) => '<div>' + esc(line) + '</div>').join('') + '</pre>' : '';
function refresh(first) {
  if (first) shown = 100;
  const found = data.findings.filter(matches);
  $('rows').innerHTML = found.slice(0, shown).map((finding) => {
    const [code, address, symbol, offset, source, message, lines, more] = finding, info = data.codes[code];
    const at = symbol ? esc(symbol) + '+0x' + offset.toString(16) : '';
    const level = '<span class="pill ' + info.severity + '">' + info.severity + '</span>';
    const line = source ? '<br><span class="src id">' + esc(source) + '</span>' : '';
    return '<tr><td>' + level + '</td><td><code>' + info.code + '</code><br><span class="owner">' + esc(info.owner) +
      '</span></td><td class="symbol">' + at + '<br><span class="id">' + address + '</span>' + line + '</td><td>' +
      esc(message) + (lines && lines.length ? listing(lines) : '') + advice(more) + '</td></tr>';
  }).join('');
  const where = range ? ' in ' + hex(range[0]) + ' to ' + hex(range[1]) : '';
  $('found').textContent = share(found, data.findings) + ' findings' + where;
  $('next').hidden = found.length <= shown;
  $('clear').hidden = !range;
}
for (const [id, key] of [['code', 'code'], ['owner', 'owner'], ['level', 'severity']]) {
  for (const value of new Set(data.codes.map((info) => info[key]))) $(id).add(new Option(value, value));
  $(id).addEventListener('change', () => refresh(true));
}
$('search').addEventListener('input', () => refresh(true));
$('next').addEventListener('click', () => { shown += 200; refresh(false); });
$('clear').addEventListener('click', () => { range = null; refresh(true); });

// Functions that cannot be patched.
let named = 60;
function patchRows(first) {
  if (first) named = 60;
  const words = $('patch-search').value.toLowerCase().split(/\\s+/).filter(Boolean), wanted = $('patch-why').value;
  const found = data.unpatchable.filter(([name, why]) => (!wanted || data.reasons[why][0] === wanted) &&
    words.every((word) => name.toLowerCase().includes(word)));
  $('patch-rows').innerHTML = found.slice(0, named).map(([name, why]) => '<tr><td class="symbol">' + esc(name) +
    '</td><td>' + esc(data.reasons[why][0]) + '</td><td>' + esc(data.reasons[why][1]) + '</td></tr>').join('');
  $('patch-found').textContent = share(found, data.unpatchable) + ' functions';
  $('patch-next').hidden = found.length <= named;
}
data.reasons.slice(1).forEach(([name]) => $('patch-why').add(new Option(name, name)));
$('patch-search').addEventListener('input', () => patchRows(true));
$('patch-why').addEventListener('change', () => patchRows(true));
$('patch-next').addEventListener('click', () => { named += 200; patchRows(false); });

// Tables that are in the page as they are: rows are hidden that lack a word.
for (const box of document.querySelectorAll('[data-rows]')) {
  const rows = [...$(box.dataset.rows).rows].slice(1);
  box.addEventListener('input', () => {
    const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
}

for (const slot of document.querySelectorAll('[data-example]')) {
  const lines = data.findings[Number(slot.dataset.example)][6];
  if (lines && lines.length) slot.innerHTML = listing(lines);
}
let timer = 0;
addEventListener('resize', () => { clearTimeout(timer); timer = setTimeout(drawMap, 120); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawMap);
drawMap();
refresh(true);
patchRows(true);
document.documentElement.dataset.ready = 'yes';
"""
"""JavaScript of the page: no library, nothing loaded from elsewhere."""
