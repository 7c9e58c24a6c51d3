from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

from everlearn.base import Model, NotFoundError, Schema, SpecError
from everlearn.registry import definitions
from everlearn.registry.definitions import Definition, check_change, define
from everlearn.registry.registry import Registry
from everlearn.registry.spec import load_spec
from tests.registry.conftest import MODEL, add_version


@dataclass(frozen=True)
class Strategy:
    start: str = "champion"
    chunk: int = 1000


@dataclass(frozen=True)
class Gate:
    margin: float = 0.01


def test_a_definition_is_kept_once_until_it_changes(registry: Registry) -> None:
    first = registry.define(MODEL, "model = 1")
    assert registry.define(MODEL, "model = 1") == first
    second = registry.define(MODEL.replace(gate=Gate()))
    assert (first.number, second.number) == (1, 2)
    assert registry.definition("delays") == second
    assert registry.definition("delays", 1).source == "model = 1"
    again = registry.define(MODEL)
    assert (again.number, again.digest) == (3, first.digest)
    with registry.database.read() as connection:
        numbers = [one.number for one in definitions.definitions(connection, "delays")]
    assert numbers == [1, 2, 3]


def test_define_itself_writes_nothing_for_an_equal_definition(local: Registry) -> None:
    local.define(MODEL)
    with local.database.write() as connection:
        assert define(connection, MODEL).number == 1


def test_models_and_sections_are_rebuilt(local: Registry) -> None:
    model = Model("m", learner=SGDClassifier(alpha=0.5), schema=Schema(target="y"), gate=Gate(0.2))
    made = local.define(model)
    assert made.model().schema == model.schema
    assert made.section("gate") == Gate(0.2)
    assert made.section("learner").alpha == 0.5


def test_missing_models_and_definitions_are_named(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match=r"no model 'other' .*none yet"):
        registry.definition("other")
    registry.define(MODEL)
    with pytest.raises(NotFoundError, match="models: delays"):
        registry.definition("other")
    with pytest.raises(NotFoundError, match="no definition 9"):
        registry.definition("delays", 9)


def test_before_there_is_a_champion_everything_may_change(registry: Registry) -> None:
    registry.define(MODEL)
    add_version(registry)
    assert registry.define(MODEL.replace(learner=GaussianNB())).number == 2


def test_after_that_a_learner_changes_only_from_scratch(registry: Registry) -> None:
    base = MODEL.replace(learner=SGDClassifier(alpha=0.1))
    registry.define(base)
    with registry.database.write() as connection:
        first = definitions.definition(connection, "delays")
    assert first.number == 1
    add = base.replace(gate=Gate())
    assert registry.define(add).number == 2
    add_version(registry, promote=True)  # defines the plain model again, learned with definition 1
    changed = base.replace(learner=SGDClassifier(alpha=0.2), strategy=Strategy())
    with pytest.raises(SpecError, match=r"learner \(alpha: 0.1 → 0.2\).*start=\"scratch\""):
        registry.define(changed)
    with pytest.raises(SpecError, match=r"schema \(target: 'late' → 'cancelled'\)"):
        registry.define(base.replace(schema=Schema(target="cancelled")))
    given = changed.replace(strategy=Strategy(start="a pretrained state"))
    assert registry.define(given).section("learner").alpha == 0.2
    fresh = changed.replace(strategy=Strategy(start="scratch"))
    number = registry.define(fresh).number
    assert registry.definition("delays").number == number
    with pytest.raises(SpecError, match="learner"):
        registry.define(changed)  # the champion is still the old learner's
    assert registry.define(base.replace(strategy=Strategy(chunk=5))).number == number + 1


def made(model: Model, source: str | None = None) -> Definition:
    config = definitions.to_config(model)
    digest = definitions.definition_digest(config, source)
    return Definition(number=1, digest=digest, config=config, source=source, created_at=0)


def test_changes_names_what_differs() -> None:
    old = made(Model("m", learner=SGDClassifier(), gate=Gate(0.1)))
    new = made(Model("m", learner=GaussianNB(), gate=Gate(0.2), holdout=0.1))
    assert definitions.changes(old, new) == ["gate", "holdout", "learner"]
    with pytest.raises(SpecError, match=r"SGDClassifier → sklearn\.naive_bayes:GaussianNB"):
        check_change(old, new)
    with pytest.raises(SpecError, match=r"SGDClassifier\(.*\) → None"):
        check_change(old, made(Model("m")))


def test_a_parameter_that_a_newer_release_added_at_its_default_is_no_change() -> None:
    old, new = made(Model("m", learner=SGDClassifier())), made(Model("m", learner=SGDClassifier()))
    del old.config["params"]["learner"]["params"]["power_t"]
    assert definitions.changes(old, new) == []
    new.config["params"]["learner"]["params"]["power_t"] = 0.9
    assert definitions.changes(old, new) == ["learner"]


SPEC = """\
import everlearn
# a comment
class Mine:
    def __init__(self, alpha=0.1):
        self.alpha = alpha
    def partial_fit(self, X, y=None):
        return 1
model = everlearn.Model("mine", learner=Mine(), holdout=0.1)
"""


def test_the_code_of_a_spec_files_class_is_part_of_the_learner(
    local: Registry, tmp_path: Any
) -> None:
    def definition_of(text: str) -> Definition:
        path = tmp_path / "spec.py"
        path.write_text(text)
        model, source = load_spec(path)
        return local.define(model, source)

    first = definition_of(SPEC)
    assert definition_of(SPEC.replace("# a comment", "# another\n")).number == 1
    second = definition_of(SPEC.replace("holdout=0.1", "holdout=0.2"))
    assert definitions.changes(first, second) == ["holdout"]
    third = definition_of(SPEC.replace("return 1", "return 2"))
    assert definitions.changes(second, third) == ["holdout", "learner"]
    with pytest.raises(SpecError, match="the code of its class"):
        check_change(second, third)
    assert third.model().learner.partial_fit(None) == 2
    assert first.model().learner.partial_fit(None) == 1


def test_what_is_only_known_by_its_place_is_part_of_the_learner(
    local: Registry, tmp_path: Any
) -> None:
    def definition_of(text: str) -> Definition:
        path = tmp_path / "spec.py"
        path.write_text(text)
        return local.define(*load_spec(path))

    text = SPEC.replace("alpha=0.1", "alpha").replace("Mine()", "Mine(alpha=lambda: 1)")
    first = definition_of(text)
    second = definition_of(text.replace("holdout=0.1", "holdout=0.2"))
    assert definitions.changes(first, second) == ["holdout"]
    third = definition_of(text.replace("lambda: 1", "lambda: 2"))
    assert definitions.changes(first, third) == ["learner"]
    assert [one.model().learner.alpha() for one in (first, third)] == [1, 2]


def test_a_definition_that_cannot_be_rebuilt_is_not_stored(local: Registry) -> None:
    with pytest.raises(SpecError, match="lambda"):
        local.define(Model("bad", learner=SGDClassifier(alpha=lambda: 1)))
    assert local.models() == []
