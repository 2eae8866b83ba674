"""The style sheet of a report, in the colours of the plots."""

from __future__ import annotations

from policysmith.evaluation.drawing import DARK, LIGHT, Theme


def _colours(theme: Theme, *, soft: str, good: str, bad: str) -> str:
    return (
        f"--ink:{theme.ink};--muted:{theme.muted};--line:{theme.grid};--paper:{theme.paper};"
        f"--accent:{theme.colours[0]};--soft:{soft};--good:{good};--bad:{bad}"
    )


STYLE = (
    f":root{{color-scheme:light dark;{_colours(LIGHT, soft='#f5f6f8', good='#16794c', bad='#b42318')}}}"
    f"@media(prefers-color-scheme:dark){{:root{{"
    f"{_colours(DARK, soft='#1e2127', good='#4cc38a', bad='#ff8f80')}}}}}"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
  font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:68rem;margin:0 auto;padding:clamp(1.25rem,4vw,3.5rem) clamp(1rem,4vw,2.5rem) 4rem}
header{margin-bottom:2rem;padding-bottom:1.25rem;border-bottom:1px solid var(--line)}
h1{font-size:clamp(1.6rem,1.2rem + 1.8vw,2.3rem);line-height:1.2;letter-spacing:-.02em;margin:0;
  overflow-wrap:anywhere;text-wrap:balance}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:2.75rem 0 1rem}
h3{font-size:.95rem;font-weight:600;line-height:1.45;text-align:left;margin:2rem 0 .6rem}
.subtitle{margin:.5rem 0 0;color:var(--muted);font-size:1.05rem}
p{max-width:44rem;margin:0 0 1rem;overflow-wrap:anywhere}
.verdict{margin:0 0 1.5rem;padding:.75rem 1rem;border-left:4px solid var(--muted);background:var(--soft);
  border-radius:0 6px 6px 0}
.verdict strong{margin-right:.4em}
.holds{border-color:var(--good)}.holds strong{color:var(--good)}
.fails{border-color:var(--bad)}.fails strong{color:var(--bad)}
.scroll{overflow-x:auto}
.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
table{border-collapse:collapse;width:100%;margin:0 0 1.5rem;font-size:.94rem;line-height:1.45}
th{font-weight:500;color:var(--muted);text-align:left;vertical-align:bottom}
th,td{padding:.5rem 1.25rem .5rem 0;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
td:first-child{min-width:8rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n{white-space:normal}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:0 2.5rem;
  margin:1rem 0 2rem;font-size:.94rem}
dl div{display:flex;justify-content:space-between;gap:1.5rem;padding:.4rem 0;
  border-bottom:1px solid var(--line)}
dt{color:var(--muted)}
dd{margin:0;text-align:right;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:2rem 2.5rem;
  margin:2rem 0;align-items:start}
figure{margin:0;min-width:0;max-width:46rem}
.film{margin:2rem 0}
figure img{display:block;width:100%;min-width:20rem;height:auto}
video{display:block;width:100%;height:auto;border-radius:6px;background:#16181d}
figcaption{margin-top:.6rem;color:var(--muted);font-size:.9rem;line-height:1.5;overflow-wrap:anywhere}
.samples{display:grid;gap:1rem;margin:1rem 0 2rem}
article{min-width:0;padding:1rem 1.1rem;background:var(--soft);border-radius:8px}
article>:last-child{margin-bottom:0}
.marks{display:flex;flex-wrap:wrap;gap:.2rem 1.25rem;margin-bottom:.6rem;font-size:.88rem;color:var(--muted)}
.marks b{color:var(--ink);font-weight:600}
h4{margin:.6rem 0 .2rem;font-size:.8rem;font-weight:500;color:var(--muted)}
pre{margin:0 0 .6rem;white-space:pre-wrap;overflow-wrap:anywhere;
  font:.86rem/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.said{display:grid;grid-template-columns:4.5rem 1fr;gap:.75rem;margin:0;padding:.25rem .6rem;
  border-left:3px solid var(--line)}
.said b{font-size:.8rem;font-weight:500;color:var(--muted)}
.said span{white-space:pre-wrap;font:.86rem/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.said.policy{border-left-color:var(--accent);background:var(--paper)}
.said.policy b{color:var(--accent)}
summary{cursor:pointer;overflow-wrap:anywhere}
@media print{main{max-width:none;padding:0}figure,article,tr{break-inside:avoid}}
"""
)
"""Self-contained CSS: no imports, no addresses."""
