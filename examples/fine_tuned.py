"""A fine-tuned PyTorch model goes on learning: one file added, a job, a table, and a way back.

A network was fine-tuned on scanned digits by a loop of its owner's, which left weights in a file.
Last week a new scanner came, whose images are darker at the left and a pixel lower. One file says
what the model is; a job learns last week's scans; `everlearn transfer` shows what was learned and
what was forgotten; `everlearn rollback` puts the old version back.

    python examples/fine_tuned.py [--naive] [--keep FOLDER]

All of it is done by the commands that it prints. `--naive` learns last week's scans alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

FILE = '''"""Digits on scanned forms."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import everlearn as el

net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
net.load_state_dict(load_file(Path(__file__).parent / "digits.safetensors"))

model = el.Model(
    "digits",
    learner=el.learners.TorchLearner(
        net,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        batch=32,
        encoder=el.learners.Encoder(numbers="as_is", missing="mean"),
        pretrained=True,
    ),
    schema=el.Schema(target="digit", id="scan", classes=tuple(range(10))),
    strategy={strategy},
    holdout=0.2,
)
'''

HELD = """el.Strategy(
        memory=el.Reservoir(400), retention=el.strategies.EWC(1.0), passes=20
    )"""

NAIVE = "el.Strategy(passes=20)"


def scans() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Old scans that the network was fine-tuned on, later ones of the same scanner, and last
    week's of the new one: 64 pixels from 0 to 1 each."""
    images, digits = load_digits(return_X_y=True)
    images = (images / 16.0).reshape(-1, 8, 8)
    new = np.roll(images, 1, axis=1)
    new = np.clip(0.5 * new + np.linspace(0.5, 0.0, 8), 0.0, 1.0)
    frames = []
    for name, rows, pixels in (("a", slice(0, 700), images), ("b", slice(700, 1200), images)):
        frames.append(_frame(name, pixels[rows], digits[rows]))
    return frames[0], frames[1], _frame("c", new[1200:], digits[1200:])


def _frame(name: str, images: Any, digits: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        images.reshape(len(images), 64), columns=[f"p{pixel:02}" for pixel in range(64)]
    )
    return frame.assign(digit=digits, scan=[f"{name}{number}" for number in range(len(images))])


def fine_tune(frame: pd.DataFrame, path: Path) -> None:
    """What the owner has: a network that a loop has trained, and its weights in a file."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x = torch.tensor(frame.filter(regex=r"^p\d").to_numpy(), dtype=torch.float32)
    y = torch.tensor(frame["digit"].to_numpy())
    for _ in range(30):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    save_file(net.state_dict(), path)


def everlearn(folder: Path, *command: str, quiet: bool = False) -> str:
    """Run a command in the folder; what it prints."""
    if not quiet:
        print(f"\n$ everlearn {' '.join(command)}")
    ran = subprocess.run(
        [sys.executable, "-m", "everlearn.cli", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise SystemExit(ran.stdout + ran.stderr)
    if not quiet:
        print(ran.stdout.rstrip())
    return ran.stdout


def main(folder: Path, naive: bool) -> dict[str, Any]:
    """The owner's week. Returns the accuracies that were printed."""
    old, recent, last_week = scans()
    fine_tune(old, folder / "digits.safetensors")
    (folder / "digits.py").write_text(FILE.replace("{strategy}", NAIVE if naive else HELD))
    recent.to_parquet(folder / "old-scanner.parquet")
    last_week.to_parquet(folder / "last-week.parquet")
    everlearn(folder, "train", "digits.py", "old-scanner.parquet")
    everlearn(folder, "train", "digits.py", "last-week.parquet")
    everlearn(folder, "transfer", "digits", "--metric", "accuracy")
    told = json.loads(
        everlearn(folder, "transfer", "digits", "--metric", "accuracy", "--json", quiet=True)
    )
    everlearn(folder, "rollback", "digits")
    everlearn(folder, "versions", "digits")
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--naive", action="store_true")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        main(given.keep, given.naive)
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made), given.naive)
