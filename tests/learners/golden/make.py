"""Writes the golden files: what every native learner was after some rows, and what it answered.

    python -m tests.learners.golden.make [--all] [learner …]

Without names, for the learners that have no file yet; with `--all`, for every one. A file is made
once for good: a release that loads it differently breaks what its users have stored. It is made
anew only while no release has it, or when a method is meant to change and CHANGELOG.md says so.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from everlearn.learners import load_file, save_file
from tests.learners.natives import TABLE, Entry, data

FOLDER = Path(__file__).parent
ROWS, MORE, SHOWN = 400, 150, 20
"""Rows that were learned, that are learned after loading, and that answers are kept of."""


def files_of(key: str) -> tuple[Path, Path]:
    """The learner, compressed, and what it answered."""
    name = key.replace(" ", "_").replace(",", "")
    return FOLDER / f"{name}.safetensors.gz", FOLDER / f"{name}.json"


def stored(key: str, folder: Path) -> Any:
    """The learner that is kept."""
    state = folder / "learner.safetensors"
    state.write_bytes(gzip.decompress(files_of(key)[0].read_bytes()))
    return load_file(state)


def answers(entry: Entry, learner: Any) -> list[Any]:
    """Probabilities, scores or values of rows that were not learned."""
    rows = data(entry, SHOWN, seed=3)[0]
    name = next(
        name for name in ("predict_proba", "decision_function", "predict") if hasattr(learner, name)
    )
    found: list[Any] = getattr(learner, name)(rows).tolist()
    return found


def go_on(entry: Entry, learner: Any) -> Any:
    """Learn what comes after loading."""
    return learner.partial_fit(*data(entry, MORE, seed=2))


def make(key: str) -> None:
    """Write the files of one learner."""
    entry = TABLE[key]
    learner = entry.make(**({"seed": 7} if "seed" in entry.make().get_params() else {}))
    learner.fit(*data(entry, ROWS, seed=1))
    state, said = files_of(key)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        save_file(learner, file.name)
        state.write_bytes(gzip.compress(Path(file.name).read_bytes(), mtime=0))
    then = {"rows": ROWS, "more": MORE, "answers": answers(entry, learner)}
    then["answers after more"] = answers(entry, go_on(entry, learner))
    said.write_text(json.dumps(then, indent=1) + "\n")


def main(words: list[str]) -> None:
    everything = "--all" in words
    named = [word for word in words if word != "--all"]
    for key in named or TABLE:
        if named or everything or not files_of(key)[0].exists():
            make(key)
            sys.stdout.write(f"{files_of(key)[0].stat().st_size:>8} bytes  {key}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
