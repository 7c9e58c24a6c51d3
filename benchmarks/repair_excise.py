"""What an excision costs, beside folding once the increments after the first withdrawn row.

A model learns increments of rows from files; some rows of one source, from an increment in the
middle on, are withdrawn. "jobs" are those that learned the increments from there on; "fold" is
`jobs.refold.refold` of the same increments with all their rows: reading, compiling and learning
them once, and nothing else. "excise" is everything: finding the rows in all increments, folding
again, judging on the hold-outs, the version. In seconds of the processor.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

import everlearn as el
from everlearn.jobs.refold import recorded, refold

INCREMENTS, ROWS, FIRST = 12, 50_000, 6
ROUNDS = 5
RESULTS = Path(__file__).parent / "results" / "repair-excise.md"


def write(folder: Path) -> list[str]:
    """The files; each row says which of four sources it came from."""
    generator, paths = np.random.default_rng(0), []
    for number in range(INCREMENTS):
        x = generator.normal(size=(ROWS, 20))
        late = x[:, :5].sum(axis=1) + generator.normal(size=ROWS) > 0
        columns = {f"x{k}": x[:, k] for k in range(20)}
        source = generator.choice(["a", "b", "c", "bot"], ROWS)
        table = pa.table({**columns, "who": source, "late": late.astype(int)})
        paths.append(str(folder / f"{number:02}.parquet"))
        pyarrow.parquet.write_table(table, paths[-1])
    return paths


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """The median over rounds, each in a workspace of its own."""
    found: dict[str, list[float]] = {"fold": [], "jobs": [], "excise": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder))
        for number in range(rounds + 1):
            told = once(f"{folder}/{number}", paths)
            if number:  # the first one warms up
                for name, value in told.items():
                    found[name].append(value)
    made = {name: statistics.median(values) for name, values in found.items()}
    for name in ("fold", "jobs"):
        pairs = zip(found["excise"], found[name], strict=True)
        made[f"of {name}"] = statistics.median(a / b for a, b in pairs)
    return made


def once(folder: str, paths: list[str]) -> dict[str, float]:
    """Seconds of the processor for each."""
    schema = el.Schema(target="late", ignore=("who",))
    strategy = el.Strategy(memory=el.Reservoir(5_000))
    learner = el.learners.LogisticRegression()
    model = el.Model("m", learner=learner, schema=schema, strategy=strategy)
    with el.open(folder) as workspace:
        handle = workspace.model(model)
        for path in paths[: FIRST - 1]:
            handle.train(path)
        began = [time.process_time()]
        for path in paths[FIRST - 1 :]:
            handle.train(path)
        began.append(time.process_time())
        parts = recorded(workspace.registry, "m", list(range(FIRST, INCREMENTS + 1)))
        base = workspace.registry.state("m", workspace.registry.version("m", FIRST - 1))
        refold(workspace.registry, "m", base, [plan for one in parts for plan in one.plans])
        began.append(time.process_time())
        handle.repair.excise(where=f"who = 'bot' and source >= '{paths[FIRST - 1]}'")
        began.append(time.process_time())
    jobs, fold, excise = np.diff(began).tolist()
    return {"fold": fold, "jobs": jobs, "excise": excise}


def table(found: dict[str, float]) -> str:
    """The lines that are committed."""
    return "\n".join(
        [
            "# Excision",
            "",
            f"Of {INCREMENTS} increments of {ROWS:,} rows, a quarter of the rows from increment"
            f" {FIRST} on are",
            f"withdrawn. Seconds of the processor, the median of {ROUNDS} rounds.",
            "",
            "| what | seconds | excise / this |",
            "|---|---|---|",
            f"| the jobs that learned increments {FIRST} to {INCREMENTS} |"
            f" {found['jobs']:.2f} | {found['of jobs']:.2f} |",
            f"| folding them, and nothing else | {found['fold']:.2f} | {found['of fold']:.2f} |",
            f"| excise, all of it | {found['excise']:.2f} | |",
            "",
        ]
    )


if __name__ == "__main__":
    measured = measure()
    print(measured)
    RESULTS.write_text(table(measured))
