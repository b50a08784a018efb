"""The plot: how many times as good as the best peer this engine is, a bar for each model and workload, as SVG.

Colours follow the reader's light or dark scheme.
"""

import math
from html import escape

from engines import OURS
from report import best_peer, number, times_as_good
from workloads import unit

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 920, 24, 200, 320, 64, 40
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 } .faint { fill: #57606a; font-size: 12px }
  .grid { stroke: #d0d7de } .one { stroke: #57606a; stroke-width: 1.5 }
  .ahead { fill: #2563a8 } .behind { fill: #b35900 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #9198a1 }
    .ahead { fill: #58a6ff } .behind { fill: #f0883e }
  }"""


def bars(runs):
    for name, workload in dict.fromkeys((line["model"], line["workload"]) for line in runs.lines if line["model"]):
        ours, peer = runs.median(name, workload, OURS), best_peer(runs, name, workload)
        if ours and peer:
            said = f"{number(ours)} : {number(peer[1])} {unit(workload).split(' ')[0].rstrip(',')} ({peer[0].split(',')[0]})"
            yield f"{name}  {workload}", times_as_good(workload, ours, peer[1]), said


def svg(runs, facts):
    found = list(bars(runs))
    ratios = [ratio for _, ratio, _ in found] or [1.0]
    # Steps of two from the least to the greatest, on a scale of powers.
    least, most = math.floor(math.log2(min(0.9, *ratios, 1))), math.ceil(math.log2(max(1.1, *ratios, 1)))
    inner = WIDTH - LEFT - RIGHT
    x = lambda ratio: LEFT + inner * (math.log2(ratio) - least) / (most - least)
    height = TOP + ROW * len(found) + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
             f"<title>Times the best peer</title><style>{STYLE}</style>",
             '<text class="title" x="16" y="24">How many times as fast as the best peer</text>',
             f'<text class="faint" x="16" y="44">{escape(facts["processor"])}, {facts["threads"]} threads; medians; ours : theirs</text>']
    bottom = TOP + ROW * len(found)
    for power in range(least, most + 1):
        at = x(2.0 ** power)
        parts += [f'<line class="{"one" if power == 0 else "grid"}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom}"/>',
                  f'<text class="faint" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{2.0 ** power:g}x</text>']
    for row, (label, ratio, said) in enumerate(found):
        y, begin, end = TOP + ROW * row, min(x(1), x(ratio)), max(x(1), x(ratio))
        parts += [f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
                  f'<rect class="{"ahead" if ratio >= 1 else "behind"}" x="{begin:.1f}" y="{y + 3}" width="{max(end - begin, 1):.1f}" height="{ROW - 8}" rx="2"/>',
                  f'<text class="faint" x="{WIDTH - RIGHT + 12}" y="{y + 15}">{ratio:.2f}x  {escape(said)}</text>']
    return "\n".join([*parts, "</svg>"]) + "\n"
