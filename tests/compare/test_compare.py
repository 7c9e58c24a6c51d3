"""A whole comparison: files in, table and report out."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from everlearn.base import InputError, NotFoundError, Schema, SpecError
from everlearn.compare.compare import compare
from everlearn.compare.loader import load_history
from everlearn.compare.replay import replay
from everlearn.compare.strategies import BUILT_IN, built_in
from everlearn.compare.table import show
from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.strategy import Strategy
from tests.compare.histories import drifting, write_csv

pytestmark = pytest.mark.xdist_group("compare")
"""One process: what learns by default takes a minute to compile, and the results are shared."""

SCHEMA = Schema(target="late", time="when", label_time="known")
CONTRACT = {"strategy", "rows", "accuracy", "log_loss", "roc_auc", "kappa", "cpu_seconds"}
CONTRACT |= {"rows_learned", "updates", "peak_memory_mb"}


def quick() -> SGDClassifier:
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.3, random_state=0)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("events") / "events.csv", drifting())


@pytest.fixture(scope="module")
def whole(events: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, list[str]]:
    out = tmp_path_factory.mktemp("out")
    lines: list[str] = []
    results = compare(str(events), SCHEMA, every="4d", out=out, workers=2, progress=lines.append)
    return results, out, lines


def test_results_csv_has_a_row_for_each_strategy(whole: tuple[Any, Path, list[str]]) -> None:
    with (whole[1] / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["strategy"] for row in rows] == list(BUILT_IN)
    assert not CONTRACT - set(rows[0])
    for row in rows:
        assert all(row[name] for name in CONTRACT)
        assert float(row["peak_memory_mb"]) > 20
    assert len({row["rows"] for row in rows}) == 1


def test_results_json_says_all_that_the_csv_says(whole: tuple[Any, Path, list[str]]) -> None:
    results, out, _ = whole
    found = json.loads((out / "results.json").read_text())
    assert [row["strategy"] for row in found["strategies"]] == list(BUILT_IN)
    assert found["best"] == results.best
    assert len(found["periods"]["start"]) == len(found["periods"]["metrics"]["never"]["log_loss"])
    assert set(found["transfer"]) == set(BUILT_IN)


def test_the_report_is_one_file(whole: tuple[Any, Path, list[str]]) -> None:
    page = (whole[1] / "report.html").read_text()
    body = page.replace(re.search(r"<script.*?plotly\.js v.*?</script>", page, re.S)[0], "")  # type: ignore[index]
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", body)
    assert "What to choose, and why" in page
    assert all(f"<td>{name}</td>" in page for name in BUILT_IN)
    assert page.count("Plotly.newPlot") == 2
    assert "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_progress_is_told_in_lines(whole: tuple[Any, Path, list[str]]) -> None:
    said = "\n".join(whole[2])
    assert all(f"{name}: done" in said for name in BUILT_IN)
    assert "2,000 rows" in said


def test_the_table_prints(whole: tuple[Any, Path, list[str]], tmp_path: Path) -> None:
    with (tmp_path / "table").open("w") as file:
        show(whole[0], file)
    text = (tmp_path / "table").read_text()
    assert all(name in text for name in (*BUILT_IN, "majority", "Choose"))


def test_processes_answer_as_this_one_does(
    events: Path, whole: tuple[Any, Path, list[str]]
) -> None:
    here = compare(str(events), SCHEMA, every="4d", workers=0)
    for score in whole[0].scores:
        other = here[score.name]
        assert other.metrics == score.metrics
        assert other.rows_learned == score.rows_learned
        assert other.label_wait == score.label_wait
    assert here.scores[0].peak_memory_mb is None
    assert any("peak memory" in note for note in here.notes)


def test_metrics_are_those_of_scikit_learn(events: Path) -> None:
    history = load_history(str(events), SCHEMA, every="4d", learner=quick())
    run = replay(history, built_in("incremental"), quick())
    results = compare(
        str(events), SCHEMA, every="4d", strategies="incremental", learner=quick(), workers=0
    )
    found = results["incremental"].metrics
    truth = history.truth()[history.timeline.before(history.timeline.start) :]
    assert run.proba is not None
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, run.value))
    assert found["log_loss"] == pytest.approx(log_loss(truth, run.proba))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, run.proba[:, 1]), abs=1e-3)


def test_what_follows_the_drift_is_best_and_never_is_behind(events: Path) -> None:
    results = compare(str(events), SCHEMA, every="4d", learner=quick(), workers=0)
    assert results.best in ("online", "hybrid")
    behind = results["never"].behind
    assert behind is not None and behind.low > 0
    assert any("calls for updates" in sentence for sentence in results.advice)
    assert results.best_job in ("window", "incremental", "replay", "batch")
    assert results.ranked[0].name == results.best


def test_prices_turn_into_money_and_a_schedule(events: Path, tmp_path: Path) -> None:
    results = compare(
        str(events),
        SCHEMA,
        every="4d",
        strategies="never,batch,incremental",
        learner=quick(),
        price_cpu_hour=36.0,
        price_error=0.5,
        out=tmp_path,
        workers=0,
    )
    best = results.hindsight
    assert best is not None
    assert best.cost <= min(best.periodic_cost, best.never_cost) + 1e-9
    batch = results["batch"]
    assert batch.cost is not None
    assert batch.cost["total"] == pytest.approx(best.periodic_cost)
    assert batch.cost["cpu"] == pytest.approx(batch.cpu_seconds * 0.01)
    totals = {score.name: score.cost["total"] for score in results.scores if score.cost}
    assert results.choice == min(totals, key=totals.__getitem__)
    assert "In money" in (tmp_path / "report.html").read_text()
    with (tmp_path / "results.csv").open() as file:
        assert "cost_total" in next(csv.reader(file))


def test_a_strategy_of_the_user_is_compared(events: Path) -> None:
    own = {"mine": Strategy(memory=Reservoir(200), chunk=100), "incremental": "incremental"}
    results = compare(str(events), SCHEMA, every="4d", strategies=own, workers=2)
    assert [score.name for score in results.scores] == ["mine", "incremental"]
    assert results["mine"].words.startswith("from the champion")


def test_text_classes_and_a_learner_without_probabilities(tmp_path: Path) -> None:
    data = drifting(1_200)
    named = np.where(data["x"][:, 1] > 0.8, "lost", np.where(data["y"] > 0, "late", "on time"))
    path = write_csv(tmp_path / "text.csv", {**data, "y": named.astype(object)})
    results = compare(
        str(path),
        SCHEMA,
        every="4d",
        strategies="never,online",
        learner="sklearn.linear_model.Perceptron",
        workers=2,
    )
    assert results.metric == "accuracy"
    assert results["online"].metrics["log_loss"] is None
    assert results["online"].metrics["accuracy"] > 0.4  # type: ignore[operator]
    smooth = compare(str(path), SCHEMA, every="4d", strategies="never,online", workers=0)
    assert smooth.metric == "log_loss"


def test_numbers_are_predicted_too(tmp_path: Path) -> None:
    data = drifting(1_200)
    value = 3.0 * data["x"][:, 0] + data["x"][:, 1] + 10.5
    path = write_csv(tmp_path / "numbers.csv", {**data, "y": value})
    for learner in ("linear", SGDRegressor(random_state=0)):
        results = compare(
            str(path),
            SCHEMA,
            every="4d",
            strategies="never,incremental",
            learner=learner,
            price_cpu_hour=1.0,
            price_error=1.0,
            workers=0,
            out=tmp_path / "out",
        )
        assert results.metric == "mae"
        assert results["incremental"].metrics["mae"] is not None
        assert set(results.baselines) == {"mean", "last_value"}
        with (tmp_path / "table").open("w") as file:
            show(results, file)


def test_rows_in_their_order_need_no_time(tmp_path: Path) -> None:
    data = drifting(1_000)
    frame = pd.DataFrame({"a": data["x"][:, 0], "b": data["x"][:, 1], "late": data["y"] > 0})
    results = compare(
        frame,
        Schema(target="late"),
        every="100rows",
        tick="1h",
        strategies="never,online",
        learner=quick(),
        workers=0,
        out=tmp_path,
    )
    assert results.unit == "rows"
    assert results["online"].rows == 900
    row = results.rows()[1]
    assert row["label_wait_hours"] is None and row["label_wait_rows"] < 3
    delayed = compare(
        frame,
        Schema(target="late"),
        every="100rows",
        label_delay="40rows",
        strategies="online",
        learner=quick(),
        workers=0,
    )
    assert delayed["online"].metrics["accuracy"] < results["online"].metrics["accuracy"]  # type: ignore[operator]


def test_labels_without_a_time_are_said_to_be_too_good(events: Path) -> None:
    plain = Schema(target="late", time="when", ignore=("known",))
    results = compare(str(events), plain, every="4d", strategies="never", workers=0)
    assert any("Neither a label time" in note for note in results.notes)
    delayed = compare(
        str(events), plain, every="4d", strategies="never", label_delay="1d", workers=0
    )
    assert not any("Neither" in note for note in delayed.notes)


def test_labels_are_not_leaked_by_any_strategy(tmp_path: Path) -> None:
    """Each label tells the next one's, but becomes known only after it: nobody can use it."""
    rng = np.random.default_rng(0)
    data = drifting(2_000)
    coin = rng.integers(0, 2, 1_000).astype(float)
    y = np.repeat(coin, 2)  # pairs of equal labels, an hour apart
    time = data["time"][0] + np.arange(2_000) * 3_600_000_000
    told = {
        **data,
        "time": time,
        "known": time + 2 * 3_600_000_000,
        "y": y,
        "x": rng.normal(size=(2_000, 2)),
    }
    path = write_csv(tmp_path / "pairs.csv", told)
    results = compare(str(path), SCHEMA, every="5d", tick="1h", learner=quick(), workers=0)
    for score in results.scores:
        assert 0.45 < score.metrics["accuracy"] < 0.55  # type: ignore[operator]
    assert 0.4 < results.baselines["no_change"]["accuracy"] < 0.6  # type: ignore[operator]


def test_what_cannot_be_learned_is_set_aside_and_said(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bad.csv", drifting(600))
    lines = path.read_text().splitlines()
    lines[5] = lines[5].rsplit(",", 1)[0] + ","
    lines[9] = lines[9] + ",too,many"
    path.write_text("\n".join(lines) + "\n")
    history = load_history(str(path), SCHEMA, every="4d")
    assert len(history) == 598
    assert any("2 rows were set aside" in note for note in history.notes)


def test_rows_out_of_order_are_sorted(tmp_path: Path) -> None:
    data = drifting(600)
    mixed = np.random.default_rng(1).permutation(600)
    ordered = write_csv(tmp_path / "ordered.csv", data)
    shuffled = write_csv(tmp_path / "mixed.csv", {k: v[mixed] for k, v in data.items()})
    first = load_history(str(ordered), SCHEMA, every="4d")
    second = load_history(str(shuffled), SCHEMA, every="4d")
    assert np.array_equal(first.timeline.time, second.timeline.time)
    assert any("order of time" in note for note in second.notes)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"strategies": "never,nightly"}, InputError, "nightly"),
        ({"strategies": "never,never"}, InputError, "named twice"),
        ({"strategies": ""}, InputError, "no strategy"),
        ({"strategies": 3}, InputError, "not 3"),
        ({"every": "soon"}, InputError, "soon"),
        ({"label_delay": "2h"}, InputError, "not both"),
        ({"price_error": 1.0}, InputError, "both prices"),
        ({"metric": "roc_auc"}, InputError, "ranked by 'roc_auc'"),
        ({"learner": "sklearn.cluster.MiniBatchKMeans"}, InputError, "clusterer"),
        ({"learner": "nowhere.Learner"}, SpecError, "nowhere"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    events: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        compare(str(events), SCHEMA, **({"every": "4d", "workers": 0} | change))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (Schema(time="when"), "target"),
        (Schema(target="lat", time="when"), "did you mean 'late'"),
        (Schema(target="late", label_time="known"), "event time"),
    ],
)
def test_schemas_that_cannot_be_are_refused(events: Path, schema: Schema, words: str) -> None:
    with pytest.raises(InputError, match=words):
        compare(str(events), schema, every="4d", workers=0)


def test_a_target_of_one_value_is_refused(tmp_path: Path) -> None:
    data = drifting(300)
    path = write_csv(tmp_path / "one.csv", {**data, "y": np.zeros(300)})
    with pytest.raises(InputError, match="one value only"):
        compare(str(path), SCHEMA, every="4d", workers=0)


def test_a_strategy_that_fails_in_its_process_names_itself(tmp_path: Path) -> None:
    data = drifting(400)
    path = write_csv(tmp_path / "few.csv", data)
    from sklearn.decomposition import IncrementalPCA

    from everlearn.learners.chain import Chain

    learner = Chain(IncrementalPCA(n_components=3), quick())
    with pytest.raises(InputError, match=r"strategy '(never|online)'"):
        compare(
            str(path),
            Schema(target="late", time="when", label_time="known", ignore=("shop",)),
            every="4d",
            tick="1h",
            strategies={"never": Strategy(chunk=1), "online": "online"},
            learner=learner,
            workers=2,
        )


def test_only_what_was_compared_can_be_asked_for(whole: tuple[Any, Path, list[str]]) -> None:
    with pytest.raises(NotFoundError, match="weekly"):
        whole[0]["weekly"]
