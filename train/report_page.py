"""The page around a report: one file, nothing fetched, light or dark as the reader's system is."""

from collections.abc import Collection, Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2230; --soft: #5d6779; --rule: #e3e7ee;
  --c0: #2563c9; --c1: #d9622b; --c2: #13876b; --c3: #a23b9c; --c4: #a57a00; --c5: #5b6470; --good: #13876b; }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1a1f28; --ink: #e8ecf3; --soft: #98a3b5;
  --rule: #2b3340; --c0: #6ea2ff; --c1: #ff9a63; --c2: #4cc7a6; --c3: #dd86d6; --c4: #dcb64a; --c5: #a6afbd;
  --good: #4cc7a6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 18px 0 8px; }
.sub, .note { color: var(--soft); margin: 0; }
.note { font-size: 13px; padding: 0 4px; }
.tiles { display: grid; gap: 12px; margin: 22px 0 0; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile, .chart, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.charts { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); }
.chart { margin: 0; padding: 12px 14px 10px; position: relative; }
figcaption { font-weight: 600; display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; }
.legend { font-weight: 400; font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 12px; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin: 0 5px 3px 0;
  background: var(--colour); }
svg { display: block; width: 100%; height: auto; margin-top: 4px; }
.tick, .label { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); fill: none; } .axis { stroke: var(--soft); fill: none; }
.line { fill: none; stroke: var(--colour); stroke-width: 1.8; stroke-linejoin: round; }
.dot { fill: var(--colour); } .bar { fill: var(--c5); opacity: .28; }
.guide { --colour: var(--soft); } path.guide { stroke-dasharray: 4 4; stroke-width: 1.2; }
.s0 { --colour: var(--c0); } .s1 { --colour: var(--c1); } .s2 { --colour: var(--c2); }
.s3 { --colour: var(--c3); } .s4 { --colour: var(--c4); } .s5 { --colour: var(--c5); }
.tip { position: absolute; pointer-events: none; background: var(--ink); color: var(--page); border-radius: 6px;
  padding: 3px 8px; font-size: 12.5px; white-space: nowrap; transform: translate(-50%, -135%); z-index: 2; }
.card { overflow-x: auto; padding: 4px 16px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.text, th.text { text-align: left; white-space: normal; }
td small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }
.charts + .charts, .card + .charts, .sub + .card { margin-top: 14px; }
td.good { color: var(--good); font-weight: 600; }
details { margin: 14px 0; } summary { cursor: pointer; font-weight: 600; font-size: 16px; }
pre { margin: 8px 0; font: 13px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-x: auto; }
.sheet { display: grid; grid-template-columns: minmax(120px, 220px) 1fr; gap: 10px 16px; padding: 12px 16px;
  align-items: center; }
.sheet p { margin: 0; font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
.sheet div { display: flex; flex-wrap: wrap; gap: 8px; }
.sheet figure { margin: 0; font-size: 11.5px; color: var(--soft); text-align: center; }
.sheet img { display: block; height: 72px; border-radius: 6px; border: 3px solid var(--rule);
  image-rendering: pixelated; }
.sheet .right img { border-color: var(--good); }
pre i { color: var(--soft); font-style: normal; } a { color: var(--c0); }
"""

SCRIPT = """
for (const svg of document.querySelectorAll('svg[data-hover]')) {
  const series = JSON.parse(svg.dataset.hover), figure = svg.parentElement, box = svg.viewBox.baseVal;
  const tip = document.createElement('div');
  tip.className = 'tip'; tip.hidden = true; figure.append(tip);
  const mark = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
  mark.setAttribute('r', 4.5); mark.style.display = 'none'; svg.append(mark);
  const leave = () => { tip.hidden = true; mark.style.display = 'none'; };
  svg.addEventListener('pointerleave', leave);
  svg.addEventListener('pointermove', event => {
    const frame = svg.getBoundingClientRect(), zoom = frame.width / box.width;
    const x = (event.clientX - frame.left) / zoom, y = (event.clientY - frame.top) / zoom;
    let best = null, near = Infinity;
    for (const one of series) one.at.forEach((point, i) => {
      const far = Math.abs(point[0] - x) * 3 + Math.abs(point[1] - y);
      if (far < near) { near = far; best = [one, point, i]; }
    });
    if (!best) return leave();
    const [one, point, i] = best;
    tip.textContent = (series.length > 1 ? one.name + '  ' : '') + one.text[i];
    tip.hidden = false; mark.style.display = '';
    mark.setAttribute('class', 'dot ' + one.class);
    mark.setAttribute('cx', point[0]); mark.setAttribute('cy', point[1]);
    const edge = figure.clientWidth, half = tip.offsetWidth / 2;
    tip.style.left = Math.min(edge - half - 4, Math.max(half + 4, svg.offsetLeft + point[0] * zoom)) + 'px';
    tip.style.top = svg.offsetTop + point[1] * zoom + 'px';
  });
}
"""

MARK = ' class="right"'
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(*, title: str, subtitle: str, body: str) -> str:
    """A whole document; its policy forbids the browser to fetch anything."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p>{body}</main>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def tiles(facts: Sequence[tuple[str, str]]) -> str:
    """Large figures with what they are."""
    cells = [f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in facts]
    return f'<div class="tiles">{"".join(cells)}</div>' if facts else ""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: Sequence[int] = (),
    good: Collection[tuple[int, int]] = (),
) -> str:
    """Lines of a cell after its first are small; columns in `text` are prose, the (row, column) in `good` stand out."""
    if not rows:
        return ""

    def kind(row: int, column: int) -> str:
        if column in text:
            return ' class="text"'
        return ' class="good"' if (row, column) in good else ""

    top = "".join(f"<th{kind(-1, i)}>{escape(name)}</th>" for i, name in enumerate(head))
    lines = ["".join(f"<td{kind(r, i)}>{_cell(cell)}</td>" for i, cell in enumerate(row)) for r, row in enumerate(rows)]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="card"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    first, _, rest = text.partition("\n")
    return escape(first) + (f"<small>{escape(rest)}</small>" if rest else "")


def sheet(rows: Sequence[Mapping]) -> str:
    """Queries at the left, by words and picture; their neighbours beside them, the right ones framed."""
    lines = []
    for row in rows:
        asks = f"<figure>{_picture(row['image'], row['text'])}</figure>" if row["image"] else ""
        found = "".join(
            f"<figure{MARK if one['right'] else ''}>"
            f"{_picture(one['image'], 'right' if one['right'] else 'wrong')}{one['score']:.2f}</figure>"
            for one in row["found"]
        )
        lines.append(f"<div>{asks}<p>{escape(row['text'])}</p></div><div>{found}</div>")
    return f'<div class="card sheet">{"".join(lines)}</div>' if rows else ""


def _picture(data: str, label: str) -> str:
    return f'<img src="data:image/png;base64,{escape(data, quote=True)}" alt="{escape(label, quote=True)}">'


def section(title: str, content: str, *, level: int = 2) -> str:
    return f"<section><h{level}>{escape(title)}</h{level}>{content}</section>" if content else ""


def folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""
