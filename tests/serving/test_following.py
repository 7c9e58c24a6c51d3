"""A served model follows its champion, whoever moves it, and with nobody who trains."""

from __future__ import annotations

import time
from pathlib import Path

import everlearn as el
from everlearn.cli import main
from tests.serving.server import Server
from tests.serving.test_rollouts import history

SPEC = """
import everlearn as el

model = el.Model("m", learner="logistic", schema=el.Schema(target="late", numeric=("x",)))
"""


def test_a_rollback_by_the_command_line_is_served_with_trainer_and_monitor_dead(
    tmp_path: Path,
) -> None:
    """The server learns nothing, no worker runs, and nobody asks for metrics: within a moment it
    answers with the version that was gone back to, and only then says so itself."""
    place, spec = tmp_path / "workspace", tmp_path / "spec.py"
    spec.write_text(SPEC)
    with el.open(place) as workspace:
        for seed in (0, 1):
            rows = history(tmp_path / f"{seed}.csv", 500, seed=seed)
            workspace.model(str(spec)).train(rows)
        digests = {one["number"]: one["state_digest"] for one in workspace.model("m").versions()}
    with Server(place, spec, options=["--no-learn"]) as server:

        def serving() -> tuple[int, str]:
            said = server.client.get("/v1/models/m").json()["serving"]
            return said["version"], said["digest"]

        assert serving() == (2, digests[2])
        assert main(["--workspace", str(place), "rollback", "m"]) == 0
        deadline = time.monotonic() + 30
        while serving() != (1, digests[1]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        asked = {"instances": [{"x": 1.0}]}
        assert server.post("/v1/models/m/predict", asked)["predictions"][0]["version"] == 1
        # over HTTP, the answer comes once it serves
        server.post("/v1/models/m/promote", {"version": 2})
        assert serving() == (2, digests[2])
        server.post("/v1/models/m/rollback", None)
        assert serving() == (1, digests[1])
