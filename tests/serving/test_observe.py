"""What a server says of itself: metrics, its log, traces."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import everlearn as el
from everlearn.jobs.spans import span
from everlearn.serving.events import Events
from everlearn.serving.journal import Journal, JsonFormatter
from tests.serving.local import LocalClient as TestClient

URL = "/v1/models/m"
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        model = el.Model("m", learner="logistic", schema=el.Schema(target="y"))
        lines = [f"{x / 100},{int(x > 0)}" for x in range(-200, 200)]
        (tmp_path / "first.csv").write_text("\n".join(["x,y", *lines]) + "\n")
        workspace.model(model).train(str(tmp_path / "first.csv"))
        yield workspace


def values(client: TestClient) -> dict[tuple[Any, ...], float]:
    """(name, values of labels but the model's) → value."""
    text = client.get("/metrics").text
    return {
        (
            sample.name,
            *(value for name, value in sorted(sample.labels.items()) if name != "model"),
        ): (sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def use(client: TestClient) -> None:
    """Three rows are predicted, and one is labelled."""
    rows = [{"x": 1.0}, {"x": -1.0}, {"x": 0.5}]
    given = client.post(f"{URL}/predict", json={"instances": rows}).json()["predictions"]
    said = {"labels": [{"prediction_id": given[0]["id"], "value": 1}]}
    assert client.post(f"{URL}/feedback", json=said).status_code == 200


def test_metrics_say_how_models_stand(workspace: el.Workspace) -> None:
    with TestClient(workspace.app(["m"], learn=False)) as client:
        use(client)
        seen = values(client)
        assert seen["everlearn_predictions_total",] == 3
        assert seen["everlearn_labels_total",] == 1
        assert seen["everlearn_request_seconds_count", "predict"] == 1
        assert seen["everlearn_serving_version",] == 1
        assert seen["everlearn_labels_unlearned",] == 1
        assert seen["everlearn_jobs", "done"] == 1
        assert seen["everlearn_jobs", "failed"] == 0
        assert seen["everlearn_alias_moves_total", "promote"] == 1
        assert seen["everlearn_rollout_running",] == 0
        assert seen["everlearn_database_up",] == 1
        workspace.model("m").update()
        client.post(f"{URL}/rollback", json={"to": 1})
        seen = values(client)
        assert seen["everlearn_jobs", "done"] == 2
        assert seen["everlearn_labels_unlearned",] == 0
        assert seen["everlearn_alias_moves_total", "rollback"] == 1


def test_the_dashboard_asks_for_metrics_that_there_are(workspace: el.Workspace) -> None:
    asked = set(re.findall(r"everlearn_[a-z_]+", DASHBOARD.read_text()))
    with TestClient(workspace.app(["m"], learn=False)) as client:
        use(client)
        text = client.get("/metrics").text
    told = set(re.findall(r"everlearn_[a-z_]+", text))
    assert asked <= told
    assert len(asked) > 8


def test_the_journal_logs_each_event_once_with_its_ids(
    workspace: el.Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    handle = workspace.model("m")
    (answer,) = handle.predict([{"x": 1.0}])
    handle.feedback(answer.id, 1)
    journal = Journal(Events(workspace.database), {"m": handle.log.model}, pause=60.0)
    with caplog.at_level(logging.INFO, "everlearn.events"):
        journal.start()
        handle.update()
        handle.rollback(1)
        journal.look()
        journal.stop()
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [(line["event"], line.get("job"), line["version"]) for line in lines] == [
        ("alias", None, 2),
        ("alias", None, 1),
        ("job", 2, 2),
    ]
    assert all(line["model"] == "m" and line["level"] == "info" for line in lines)
    assert "rollback" in lines[1]["message"]


def test_a_record_with_an_error_is_one_line_of_json() -> None:
    try:
        raise ValueError("no\nsuch thing")
    except ValueError as error:
        record = logging.LogRecord(
            "everlearn", logging.ERROR, "", 1, "a %s", ("b",), (ValueError, error, None)
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "a b"
    assert "such thing" in json.loads(line)["error"]


def test_traces_are_sent_to_a_collector(
    workspace: el.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    otel = pytest.importorskip("opentelemetry.sdk.trace", reason="needs everlearn[traces]")
    from opentelemetry import trace as api

    from everlearn.serving.traces import trace

    got: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *given: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{collector.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    app = workspace.app(["m"], learn=False)
    trace(app)
    with TestClient(app) as client:
        use(client)
        client.get("/healthz")
        client.post("/v1/models/m/jobs")
    with pytest.raises(el.LeaseLostError), span("job", model="m", job=0):
        raise el.LeaseLostError("another worker has it")
    assert workspace.work(once=True) == 1
    provider = api.get_tracer_provider()
    assert isinstance(provider, otel.TracerProvider)
    provider.shutdown()
    collector.shutdown()
    collector.server_close()
    sent = b"".join(got)
    assert b"/v1/models/{model}/predict" in sent
    assert b"everlearn" in sent
    assert b"/healthz" not in sent
    for step in ("plan", "job", "learn", "gate", "promote"):
        assert f"everlearn.{step}".encode() in sent
    assert b"everlearn.version" in sent and b"another worker has it" in sent


def test_without_traces_nothing_is_loaded(tmp_path: Path) -> None:
    program = f"""
import sys, everlearn as el
from everlearn.jobs.spans import span
with span("job", job=1) as told:
    told(version=2)
with el.open({str(tmp_path / "workspace")!r}) as workspace:
    workspace.work(once=True)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
