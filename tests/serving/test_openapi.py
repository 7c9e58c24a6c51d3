"""Requests that schemathesis makes up from the OpenAPI document, right ones and wrong ones: none is
answered with an error of the server, and what is answered is what the document says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

import everlearn as el
from tests.serving.server import Server

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")

from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
)

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]

EXAMPLES = 8
"""Requests for each route."""


SPEC = """
import everlearn as el

model = el.Model("m", learner="logistic", schema=el.Schema(target="late", numeric=("x",)))
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("api")
    (folder / "spec.py").write_text(SPEC)
    lines = ["x,late", *(f"{n / 10.0},{int(n > 20)}" for n in range(40))]
    (folder / "first.csv").write_text("\n".join(lines) + "\n")
    with el.open(folder / "workspace") as workspace:
        workspace.model(str(folder / "spec.py")).train(str(folder / "first.csv"))
    with Server(folder / "workspace", folder / "spec.py") as server:
        described = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        yield described.exclude(path_regex="/events$")  # it goes on until the caller is gone


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_made_up_requests(api: Any, mode: Any) -> None:
    answered: Counter[int] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode), here=st.booleans())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any, here: bool) -> None:
            if here and "model" in case.path_parameters:
                case.path_parameters["model"] = "m"
            answer = case.call()
            answered[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        with suppress(Unsatisfiable):  # no wrong request can be made of nothing
            ask()
    assert not any(status >= 500 for status in answered)
    assert answered[200] > 0 and answered[422] > 0, answered
