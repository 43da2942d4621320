"""The style sheet and the script of the HTML page."""

from __future__ import annotations

from pyalloc._pictures.palette import DARK, LIGHT, Theme

SCRIPT = """
(function () {
  var svg = document.getElementById('timeline-chart'), data = document.getElementById('timeline-data');
  if (!svg || !data) return;
  var all = JSON.parse(data.textContent), cursor = document.getElementById('cursor');
  var out = document.getElementById('readout'), idle = out.textContent;
  function size(n) {
    var units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'], i = 0;
    while (n >= 1024 && i < 4) { n /= 1024; i++; }
    return n.toPrecision(4) * 1 + ' ' + units[i];
  }
  function value(points, t) {
    var low = 0, high = points.length;
    while (low < high) { var mid = (low + high) >> 1; if (points[mid][0] <= t) low = mid + 1; else high = mid; }
    return low ? points[low - 1][1] : null;
  }
  svg.addEventListener('pointermove', function (event) {
    var box = svg.getBoundingClientRect();
    if (!box.width) return;
    var x = (event.clientX - box.left) / box.width * all.width;
    var t = (x - all.left) / all.plot * all.end;
    if (t < 0 || t > all.end) return;
    cursor.setAttribute('x1', x); cursor.setAttribute('x2', x); cursor.setAttribute('visibility', 'visible');
    out.textContent = t.toFixed(3) + ' s: ' + all.series.map(function (one) {
      var found = value(one.points, t);
      return found === null ? null : one.name + ' ' + size(found);
    }).filter(Boolean).join(' · ');
  });
  svg.addEventListener('pointerleave', function () {
    cursor.setAttribute('visibility', 'hidden');
    out.textContent = idle;
  });
})();
"""

_SHEET = """
* { box-sizing: border-box }
body { margin: 0; background: var(--background); color: var(--text); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main { max-width: 1088px; margin: 0 auto; padding: 32px 24px 64px }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 19px; margin: 48px 0 4px }
h3 { font-size: 15px; margin: 24px 0 4px }
p { margin: 4px 0 12px; max-width: 76ch }
.muted, .lead { color: var(--muted) }
nav { margin: 16px 0 0; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px }
a { color: var(--explicit-4) }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 20px 0 8px; padding: 0 }
.tile { background: var(--card); border-radius: 8px; padding: 12px 14px; margin: 0 }
.tile dt { font-size: 13px; color: var(--muted) }
.tile dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.35 }
.tile dd small { display: block; font-size: 12.5px; font-weight: 400; color: var(--muted); line-height: 1.35;
  min-height: 17px }
.warning { background: var(--card); border-left: 4px solid var(--huge); border-radius: 4px; padding: 10px 14px;
  max-width: none }
figure { margin: 12px 0 8px }
figcaption { color: var(--muted); font-size: 13.5px; margin-top: 6px }
.map img { display: block; width: 100%; height: auto; border-radius: 3px }
.map.few img { image-rendering: pixelated }
.legend { display: flex; flex-wrap: wrap; gap: 10px 28px; margin: 14px 0 6px; font-size: 13px }
.legend b { display: block; font-weight: 600; margin-bottom: 4px }
.legend .row { display: flex; flex-wrap: wrap; gap: 6px 5px }
.legend .row span { width: 64px } .legend .row span.roomy { width: 104px }
.legend i { display: block; height: 12px; border-radius: 2px; border: 1px solid var(--edge); margin-bottom: 2px }
.legend em { display: block; font-style: normal; color: var(--muted); font-variant-numeric: tabular-nums }
.hatch { background: repeating-linear-gradient(135deg, var(--huge) 0 1.5px, var(--background) 1.5px 5px) }
svg { display: block; width: 100%; height: auto }
svg text { font-size: 13px; fill: var(--text) }
svg .tick { fill: var(--muted); font-size: 12.5px } svg .strong { fill: var(--text) }
.grid { stroke: var(--grid) } .axis { stroke: var(--muted) } .cursor { stroke: var(--muted); stroke-dasharray: 2 3 }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.line.rss { stroke: var(--line-rss) } .line.use { stroke: var(--line-in-use) } .line.pause { stroke: var(--line-pause) }
.line.goal { stroke: var(--line-goal); stroke-dasharray: 6 4 } .line.live { stroke: var(--line-live) }
.line.all { stroke-dasharray: 2 3 }
svg .name.rss { fill: var(--line-rss) } svg .name.use { fill: var(--line-in-use) }
svg .name.goal { fill: var(--line-goal) }
svg .name.live { fill: var(--line-live) } svg .name.pause { fill: var(--line-pause) }
.area { fill: var(--line-in-use); opacity: .13 }
.alive { fill: var(--kept); background: var(--kept) }
.rounding { fill: var(--explicit-3); background: var(--explicit-3) }
.free { fill: var(--explicit-1); background: var(--explicit-1) }
.tail { fill: var(--managed-3); background: var(--managed-3) }
#readout { font-size: 13px; color: var(--muted); min-height: 20px; font-variant-numeric: tabular-nums; max-width: none }
.narrow { display: none }
.scroll { overflow-x: auto; margin: 8px 0 }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--muted); font-size: 13.5px; padding-bottom: 4px }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--grid); white-space: nowrap }
th { font-weight: 600; color: var(--muted); font-size: 13px }
th:first-child, td:first-child, .left { text-align: left } td.wrap { white-space: normal; min-width: 220px }
tr.set td { font-weight: 600 }
code, .mono { font: 13px/1.45 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
details { margin: 10px 0 } summary { cursor: pointer; color: var(--explicit-4) }
footer { margin-top: 56px; color: var(--muted); font-size: 13px }
@media (max-width: 900px) { .tiles { grid-template-columns: repeat(3, 1fr) } }
@media (max-width: 640px) {
  main { padding: 20px 14px 40px } h1 { font-size: 21px } .wide { display: none } .narrow { display: block }
  .tiles { grid-template-columns: repeat(2, 1fr) } .tile dd { font-size: 18px } .legend .row span { width: 80px }
}
"""


def _variables(theme: Theme, card: str, edge: str) -> str:
    found = {
        "background": theme.background,
        "text": theme.text,
        "muted": theme.muted,
        "grid": theme.grid,
        "card": card,
        "edge": edge,
        "released": theme.released,
        "empty": theme.free,
        "kept": theme.kept,
        "huge": theme.huge,
    }
    found.update({f"line-{name.replace(' ', '-')}": colour for name, colour in theme.lines.items()})
    for kind, colours in (("explicit", theme.explicit), ("managed", theme.managed)):
        found.update({f"{kind}-{index}": colour for index, colour in enumerate(colours)})
    return "".join(f"--{name}:{colour};" for name, colour in found.items())


def sheet() -> str:
    """CSS for both themes; which one holds is the reader's choice (prefers-color-scheme)."""
    return (
        f":root{{color-scheme:light dark;{_variables(LIGHT, '#f6f6f4', '#00000022')}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_variables(DARK, '#1f2228', '#ffffff22')}}}}}" + _SHEET
    )
