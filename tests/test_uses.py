"""The examples of uses: each runs as it is, and what the loop gains is what it says.

The data, the ids and the clocks are the example's own, so that the figures are the same each time.
"""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def found(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Any:
    """What an example prints; it runs from an empty folder, and leaves nothing there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [request.param, "--quick", "--json"])
    runpy.run_path(str(EXAMPLES / request.param), run_name="__main__")
    assert list(tmp_path.iterdir()) == []
    return json.loads(capsys.readouterr().out)


def use(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("found", [name], indirect=True)


@use("fraud.py")
def test_fraud_that_changes_is_caught(found: Any) -> None:
    assert found["gain"]["caught"]["mean"] > 0.3
    assert found["gain"]["pr_auc"]["mean"] > 0.2
    assert found["gain"]["log_loss"]["mean"] < -0.01


@use("clicks.py")
def test_weights_gain_over_the_log_as_it_is(found: Any) -> None:
    assert found["gain"]["over_frozen"]["mean"] > 0.003
    assert found["gain"]["over_naive"]["low"] > 0.0
    assert found["models"]["loop"]["clicks"] > found["models"]["naive"]["clicks"]


@use("moderation.py")
def test_agreement_and_chances_gain_over_raw_feedback(found: Any) -> None:
    for other in ("frozen", "appeals", "raw review"):
        assert found["gain"][f"over_{other}"]["log_loss"]["mean"] < -0.02


@pytest.mark.skipif(find_spec("tokenizers") is None, reason="everlearn[text] is not installed")
@use("nightly_chatbot.py")
def test_recurring_errors_are_gone_the_next_day(found: Any) -> None:
    (night,) = found["models"]["loop"]["nights"]
    assert night["corrected"] >= 3
    assert night["right_next_day"] >= 0.7 * night["corrected"]
    assert night["unlearned"] <= 0.15 * night["right_before"]
    assert night["right_after"] > night["right_before"]


@pytest.mark.skipif(
    shutil.which("mosquitto") is None, reason="needs an MQTT broker: mosquitto is not installed"
)
@use("maintenance.py")
def test_readings_over_mqtt_are_learned(found: Any) -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    assert found["messages"] > 5000 and found["jobs"] >= 8
    assert found["gain"]["caught"]["mean"] > 0.03
    assert found["gain"]["log_loss"]["mean"] < -0.02


def test_without_a_broker_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["maintenance.py", "--quick"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="--broker mqtt://host:1883"):
        runpy.run_path(str(EXAMPLES / "maintenance.py"), run_name="__main__")


def test_flights_are_served_for_some_days(tmp_path: Path) -> None:
    out = tmp_path / "live"
    words = ["--out", str(out), "--days", "4", "--days-per-second", "100"]
    command = [sys.executable, str(EXAMPLES / "live_flights.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads((out / "outcome.json").read_text())
    assert outcome["champions"] >= 1
    assert 0.3 < outcome["months"]["all"]["log_loss"] < 0.7
    assert "version 1 serves" in done.stdout


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is needed")
def test_a_fine_tuned_module_goes_on_learning(tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / "fine_tuned.py"))["main"]
    old, new = main(tmp_path, naive=False)["periods"]
    assert old["forgotten"] < 0.06 and old["now"] > 0.9
    assert new["after"] > new["before"] + 0.4


@use("poisoned_feedback.py")
def test_poisoned_feedback_is_found_and_folded_away(found: Any) -> None:
    began = str(found["lies_from_version"])
    losses = found["log_loss"]
    assert losses[began] > losses[str(int(began) - 1)] + 0.1
    assert found["bisect"]["version"] == int(began)
    assert "source = 'app'" in found["bisect"]["next"]
    assert (found["patch"]["answers_now"], found["patch"]["other_answers_changed"]) == (
        1 - found["patch"]["answered"],
        0,
    )
    assert found["excise"]["log_loss"] < losses[str(int(began) - 1)] + 0.01
    assert found["bit_equal"]
