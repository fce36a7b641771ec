"""Layer 8: how the page of an audit looks; light and dark."""

from __future__ import annotations

from typing import Final

__all__ = ["STYLE"]

STYLE: Final = """
:root {
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2327; --soft: #5d6770; --line: #e3e0d8; --faint: #f2f0ea;
  --proven: #2f7d6b; --refuted: #d1383b; --unproven: #e0a021; --none: #7a6fa8; --pad: #e6e3da; --data: #b9c4cc;
  --accent: #2f5d8a; --shadow: 0 1px 2px rgb(30 30 20 / 6%), 0 6px 24px rgb(30 30 20 / 5%);
  --mono: ui-monospace, "SF Mono", "Cascadia Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181b; --card: #1b2125; --ink: #e6e8e6; --soft: #97a3ab; --line: #2c343a; --faint: #20272c;
    --proven: #3f9c86; --refuted: #f0585a; --unproven: #e9b44c; --none: #988cd0; --pad: #293036; --data: #4d5a63;
    --accent: #7fb0e0; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 80px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 18px; margin-bottom: 22px; }
h1 { font-size: 26px; letter-spacing: -.02em; margin: 0; font-weight: 650; }
h2 { font-size: 17px; letter-spacing: -.01em; margin: 40px 0 4px; font-weight: 650; }
h2 + p.lead { margin: 0 0 14px; color: var(--soft); }
.id { font: 12.5px var(--mono); color: var(--soft); overflow-wrap: anywhere; }
.kicker { flex-basis: 100%; color: var(--soft); font-size: 12px; letter-spacing: .09em; text-transform: uppercase; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; }
.tile, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: var(--shadow);
}
.tile { padding: 16px 18px 14px; border-top: 3px solid var(--tone, var(--line)); }
.tile b {
  display: block; font-size: 27px; font-weight: 620; letter-spacing: -.02em; font-variant-numeric: tabular-nums;
}
.tile span { color: var(--soft); font-size: 13px; }
.tile i {
  font-style: normal; float: right; color: var(--tone); font-weight: 600; font-variant-numeric: tabular-nums;
}
.bar { display: flex; height: 12px; border-radius: 6px; overflow: hidden; margin: 18px 0 0; background: var(--pad); }
.bar span { min-width: 3px; }
.proven { --tone: var(--proven); } .refuted { --tone: var(--refuted); } .unproven { --tone: var(--unproven); }
.no_metadata { --tone: var(--none); } .padding { --tone: var(--pad); } .data { --tone: var(--data); }
.bar span, .key::before { background: var(--tone); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: 13px; color: var(--soft); margin: 0 0 12px; }
.key::before { content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.card { padding: 20px 22px; }
#map { display: block; width: 100%; cursor: crosshair; }
#tip {
  position: fixed; pointer-events: none; z-index: 9; max-width: 380px; padding: 9px 12px; border-radius: 8px;
  background: var(--ink); color: var(--paper); font-size: 12.5px; line-height: 1.45;
  opacity: 0; transition: opacity .1s;
}
#tip code { font-size: 12px; }
code, pre, td.mono { font-family: var(--mono); font-size: 12.5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th {
  text-align: left; font-weight: 600; color: var(--soft); font-size: 12px; padding: 7px 10px;
  border-bottom: 1px solid var(--line); white-space: nowrap;
}
td { padding: 7px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.zero { color: var(--line); }
.codes { display: grid; gap: 12px; }
details.card { padding: 0; overflow: hidden; }
details.card > summary {
  list-style: none; cursor: pointer; padding: 14px 20px; display: grid; gap: 2px 14px; align-items: baseline;
  grid-template-columns: 64px 74px 1fr auto;
}
details.card > summary::-webkit-details-marker { display: none; }
details.card > summary:hover { background: var(--faint); }
details.card[open] > summary { border-bottom: 1px solid var(--line); }
summary .count { font-weight: 620; font-size: 17px; text-align: right; font-variant-numeric: tabular-nums; }
summary .what small { display: block; color: var(--soft); font: 12px var(--mono); }
.pill {
  font-size: 11.5px; font-weight: 600; padding: 2px 9px; border-radius: 20px; text-align: center;
  color: var(--tone); border: 1px solid var(--tone);
}
.error { --tone: var(--refuted); } .warning { --tone: var(--unproven); } .note { --tone: var(--soft); }
.owner { color: var(--soft); font-size: 12.5px; white-space: nowrap; }
.body { padding: 14px 20px 18px; }
.body p { margin: 0 0 10px; max-width: 78ch; }
.fix { border-left: 3px solid var(--proven); padding-left: 12px; }
.example { margin-top: 14px; }
.example .at { font: 13px var(--mono); overflow-wrap: anywhere; }
.example .src { color: var(--accent); font: 12px var(--mono); overflow-wrap: anywhere; }
.example .msg { color: var(--soft); font-size: 13.5px; }
pre.asm {
  margin: 8px 0 0; padding: 10px 0; background: var(--faint); border-radius: 8px; overflow-x: auto; line-height: 1.6;
}
pre.asm div { padding: 0 14px; white-space: pre; border-left: 3px solid transparent; }
pre.asm div[class] { border-left-color: var(--tone); }
pre.asm .refuted { background: color-mix(in srgb, var(--refuted) 12%, transparent); }
pre.asm .hit { font-weight: 650; }
pre.asm s { text-decoration: none; color: var(--soft); }
.tools { display: flex; flex-wrap: wrap; gap: 8px; margin-bottom: 12px; }
input[type=search], select {
  font: inherit; font-size: 13.5px; padding: 7px 11px; border-radius: 8px; border: 1px solid var(--line);
  background: var(--paper); color: var(--ink);
}
input[type=search] { flex: 1 1 260px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
button {
  font: inherit; font-size: 13px; padding: 7px 13px; border-radius: 8px; border: 1px solid var(--line);
  background: var(--card); color: var(--ink); cursor: pointer;
}
button:hover { border-color: var(--accent); }
.hint { color: var(--soft); font-size: 13px; margin: 10px 0 0; }
td.symbol { font: 12.5px var(--mono); overflow-wrap: anywhere; min-width: 190px; }
footer {
  margin-top: 48px; color: var(--soft); font-size: 12.5px; border-top: 1px solid var(--line); padding-top: 14px;
}
@media (max-width: 760px) {
  main { padding: 20px 14px 60px; }
  details.card > summary { grid-template-columns: 52px 70px 1fr; }
  .owner { grid-column: 3; }
}
"""
"""CSS of the page; nothing is loaded from elsewhere."""
