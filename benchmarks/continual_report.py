"""The tables of the continual-learning benchmark."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

TITLES = {
    ("hsu", "class"): "Split-MNIST, class-incremental",
    ("hsu", "domain"): "Split-MNIST, domain-incremental",
    ("hsu", "task"): "Split-MNIST, task-incremental",
    ("gdumb", "class"): "Split-MNIST, class-incremental, learned from the memory alone",
    ("mammoth", "class"): "Split-MNIST, class-incremental, one pass in steps of ten",
    ("mammoth", "permuted"): "Permuted-MNIST, twenty permutations",
    ("mammoth", "rotated"): "Rotated-MNIST, twenty angles",
}

HEAD = """# Continual learning on MNIST

Written by `python -m benchmarks.continual --table`. Accuracy on the test rows of all tasks after
the last one, in per cent: mean ± standard deviation over seeds. "Held" says whether the mean is
within one published standard deviation of the published mean, or above.

- Tables of Hsu et al. 2018 (arXiv 1810.12488, table 2): MLP 400-400, Adam of .001, batch 128, four
  passes; with replay as many remembered rows as new ones, in steps of 256 (1,100 rows) or 128
  (4,400) of both. Pixels are 28 × 28 from 0 to 1 here; there they have a border of two, mean 0 and
  deviation 1 (tried on other seeds: better for MAS by .3, worse for replay by .4 to 1.1). All
  scores are there from the start; there they come with their classes. Strengths of EWC, SI and
  MAS, and the steps of replay, were chosen on seeds that are not in the table.
- Tables of Buzzega et al. 2020 (arXiv 2004.07211, tables 1 and 2) with the weights' beginning, the
  learning rates and the arguments of their code: MLP 100-100, SGD, one pass; batch 10 (Split) or
  128. Permuted and rotated tasks are judged by every fifth test row. λ of EWC does not carry over
  between codes: it was chosen on a seed that is not in the table, as was the rate of joint.
- Table 2 of Prabhu et al. 2020 (GDumb) with the recipe of their code: MLP 400-400 with batch
  normalisation, 128 passes over the memory in steps of 16, random crops, SGD with warm restarts.
  They report the best pass by the test rows, here it is the last; they draw which digits make a
  pair and take the first rows of a class, here pairs are in order and rows are drawn.

A dash: nothing was published for this setting.
"""

COST = """
## Processor time

Three increments of Split-MNIST (35,000 rows), five passes, MLP 400-400, Adam, batch 128, chunks of
12,800 rows, one thread; the median of {rounds} rounds in turn, in seconds, and beside the loop by
hand on tensors in memory. "learn" is `everlearn.learn` from arrays: compiled, tested, then learned.
"job" is `train` in a workspace: rows stored, held out, checkpoints, gate, version.

| method | by hand | learn | ratio | job | ratio |
|---|---|---|---|---|---|
"""


def write_tables(found: Any, settings: Any, path: Path) -> None:
    """Write what was run as Markdown."""
    text = HEAD
    for setting, scenario, methods in settings:
        rows = [_row(found["runs"], setting, scenario, method) for method in methods]
        rows = [row for row in rows if row]
        if rows:
            text += f"\n## {TITLES[setting, scenario]}\n\n"
            text += "| method | here | published | held | seeds | CPU s a run |\n"
            text += "|---|---|---|---|---|---|\n"
            text += "\n".join(rows) + "\n"
    cost = found.get("cost")
    if cost:
        text += COST.format(rounds=3)
        for name, row in cost.items():
            if name != "memory":
                names = ("hand", "learn", "learn ratio", "job", "job ratio")
                text += f"| {name} | {' | '.join(f'{row[key]:.2f}' for key in names)} |\n"
        memory = ", ".join(f"{value:,.0f} MiB {key}" for key, value in cost["memory"].items())
        text += (
            f"\nLargest resident size with replay and EWC, increments of 2,000 rows: {memory}.\n"
        )
    path.write_text(text)


def _row(runs: Any, setting: str, scenario: str, method: Any) -> str:
    done = runs.get(f"{setting} / {scenario} / {method.name}")
    if not done:
        return ""
    values = [one["accuracy"] for one in done.values()]
    seconds = statistics.median(one["seconds"] for one in done.values())
    mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    told = (method.published or {}).get(scenario)
    beside, held = "–", "–"
    if told:
        beside = f"{told[0]:.2f} ± {told[1]:.2f}"
        held = "yes" if mean >= told[0] - told[1] else f"no, {mean - told[0]:+.2f}"
    return (
        f"| {method.name} | {mean:.2f} ± {spread:.2f} | {beside} | {held} | {len(values)} |"
        f" {seconds:.0f} |"
    )
