"""The look of a report: light and dark, on a screen and on paper, with colours that colour-blind people tell apart."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1b1b;--soft:#555;--line:#d5d5d5;--card:#f4f5f7;--warn:#fff4dc;
--warnline:#b45f00;--c0:#0060a8;--c1:#b34700;--c2:#00745a;--c3:#8a3f78;
--grey:#c3c7cd;--grey2:#a9afb8;--on:#111;--wait:#e69f00;--step:#56b4e9;--eval:#7fc8a9;--eval2:#4fae88;--save:#cc9bb8;
--loss:#e0764c}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#eceef0;--soft:#b3bac2;--line:#3b4149;--card:#1f2429;
--warn:#3a2c10;--warnline:#e8a33d;--c0:#6cb8f0;--c1:#f0955c;--c2:#4fc9a3;--c3:#d99cc6}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:980px;padding:16px 20px 48px;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.7rem;margin:.2em 0 0}h2{font-size:1.25rem;margin:2.2em 0 .5em;border-bottom:1px solid var(--line)}
p{margin:.4em 0}.soft,.lacking,figcaption,footer{color:var(--soft)}.lacking{font-style:italic}
a{color:var(--c0)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--c1);outline-offset:2px}
.skip{position:absolute;left:-9999px}.skip:focus{position:static}
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:.8em 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:1em 0;padding:0}
.cards div{background:var(--card);border-radius:8px;padding:10px 14px}
.cards dt{color:var(--soft);font-size:.85rem}.cards dd{margin:0;font-size:1.3rem;font-weight:600}
.cards dd small{display:block;font-size:.8rem;font-weight:400;color:var(--soft)}
.verdict{font-size:1.15rem;margin:.6em 0}.verdict b.no{color:var(--c1)}.verdict b.yes{color:var(--c2)}
.warn{background:var(--warn);border-left:5px solid var(--warnline);padding:4px 16px;margin:1em 0;border-radius:4px}
.warn h2{margin:.4em 0;border:0}.warn ul{margin:.4em 0;padding-left:1.2em}
figure{margin:1em 0}figcaption{font-size:.95rem;margin-bottom:.2em}
svg.chart,svg.bar{width:100%;height:auto;display:block}
svg text{font:12px system-ui,"DejaVu Sans",sans-serif;fill:var(--fg)}
@media(max-width:640px){svg.chart text{font-size:16px}svg.chart text.mark{font-size:15px}
svg.chart text[transform]{display:none}}
svg.key{width:26px;height:8px}
svg .grid{stroke:var(--line)}svg .axis,svg .tick{stroke:var(--soft)}
svg line.mark{stroke:var(--soft);stroke-dasharray:2 4}svg text.mark{font-size:11px;fill:var(--soft)}
svg line.level{stroke:var(--c1);stroke-width:1.5;stroke-dasharray:6 4}svg text.level{fill:var(--c1)}
polyline{fill:none;stroke-width:1.8}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
circle.c0{fill:var(--c0)}circle.c1{fill:var(--c1)}circle.c2{fill:var(--c2)}circle.c3{fill:var(--c3)}
.legend span{margin-right:18px;font-size:.9rem}
rect.part{stroke:var(--bg);stroke-width:1.2}svg text.on{fill:var(--on);color:var(--on)}
.before{fill:var(--grey);background:var(--grey)}.other{fill:var(--grey2);background:var(--grey2)}
.wait{fill:var(--wait);background:var(--wait)}.step{fill:var(--step);background:var(--step)}
.evaluation{fill:var(--eval);background:var(--eval)}.checkpoint{fill:var(--save);background:var(--save)}
.loss{fill:var(--loss);background:var(--loss)}
i.swatch{display:inline-block;width:.9em;height:.9em;border-radius:3px;margin-right:.5em;vertical-align:-1px;
border:1px solid var(--soft)}
.scroll{overflow:auto;max-height:420px;margin:.5em 0}.scroll.all{max-height:none}
.scroll.all td:first-child{white-space:nowrap}
table{border-collapse:collapse;font-size:.92rem}th,td{padding:3px 14px 3px 0;border-bottom:1px solid var(--line);
text-align:left;vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
th{font-weight:600}thead th{position:sticky;top:0;background:var(--bg)}
tr.sum td{font-weight:600}summary{cursor:pointer;color:var(--soft);font-size:.92rem}
img{max-width:100%;height:auto;border-radius:4px}code{overflow-wrap:anywhere}
footer{margin-top:3em;border-top:1px solid var(--line);padding-top:.8em;font-size:.9rem}
@media print{body{max-width:none;font-size:11pt}.skip,nav{display:none}.scroll{max-height:none;overflow:visible}
h2{break-after:avoid}figure{break-inside:avoid}}
"""
"""One sheet for the whole page. Text has at least 4.5 times its background's luminance in both schemes."""
