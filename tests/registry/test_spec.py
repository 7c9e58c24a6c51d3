from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.base import Model, SpecError
from everlearn.registry.config import equal_when_rebuilt, from_config, to_config
from everlearn.registry.references import check_untrusted, needs_source
from everlearn.registry.spec import load_spec

OWN_CLASS = """\
from dataclasses import dataclass
import everlearn

@dataclass
class Mine:
    alpha: float = 0.1

    def partial_fit(self, X, y=None, classes=None):
        return self

    def shifted(self):
        return self.alpha + OFFSET

OFFSET = 1.0
model = everlearn.Model("mine", learner=Mine(0.5))
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_spec_gives_its_model_and_text(tmp_path: Path) -> None:
    text = 'import everlearn\nmodel = everlearn.Model("flights")\n'
    assert load_spec(write(tmp_path, text)) == (Model("flights"), text)


def test_a_class_of_the_spec_is_rebuilt_from_the_text_alone(tmp_path: Path) -> None:
    model, text = load_spec(write(tmp_path, OWN_CLASS))
    config = equal_when_rebuilt(model, text)
    assert needs_source(config)
    assert config["params"]["learner"]["class"] == "spec:Mine"
    code = (
        "import sys, json; from everlearn.registry.config import from_config\n"
        "config, text = json.load(sys.stdin)\n"
        "print(from_config(config, text).learner.shifted())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([config, text]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1.5"


BY_PLACE = """\
from dataclasses import dataclass
import everlearn

@dataclass
class Mine:
    steps: list

    def partial_fit(self, X, y=None, classes=None):
        return self

model = everlearn.Model("mine", learner=Mine([0.5, lambda x: x + 1]))
"""


def test_what_has_no_name_is_rebuilt_from_its_place(tmp_path: Path) -> None:
    model, text = load_spec(write(tmp_path, BY_PLACE))
    config = equal_when_rebuilt(model, text)
    assert config["params"]["learner"]["params"]["steps"] == [0.5, {"spec": "learner.steps[1]"}]
    assert needs_source(config)
    with pytest.raises(SpecError, match="text was not kept"):
        from_config(config)
    with pytest.raises(SpecError, match=r"spec:model.learner.steps\[1\]"):
        check_untrusted({"spec": "learner.steps[1]"})
    load_spec(write(tmp_path, BY_PLACE))
    assert equal_when_rebuilt(model, text) == config, "the file was read once more meanwhile"
    code = (
        "import sys, json; from everlearn.registry.config import from_config\n"
        "config, text = json.load(sys.stdin)\n"
        "print(from_config(config, text).learner.steps[1](1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([config, text]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "2"


def test_two_specs_keep_classes_of_the_same_name_apart(tmp_path: Path) -> None:
    first, text = load_spec(write(tmp_path, OWN_CLASS))
    second, other = load_spec(write(tmp_path, OWN_CLASS.replace("OFFSET = 1.0", "OFFSET = 2.0")))
    assert to_config(first) == to_config(second)
    assert first.learner.shifted() == 1.5
    assert second.learner.shifted() == 2.5
    assert text != other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import everlearn\n\nraise ValueError('boom')\n", "spec.py, line 3: ValueError: boom"),
        ("def f():\n    return 1 / 0\n\nf()\n", "spec.py, line 2: ZeroDivisionError"),
        ("import everlearn\nmodel = everlearn.Model(\n", "spec.py, line 2: SyntaxError"),
        ("import no_such_package\n", "spec.py, line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", "spec.py, line 2: SystemExit"),
        ("import everlearn as el\nel.Model('a b')\n", "line 2: SpecError: a model's name"),
        ("x = 1\n", "no 'model' is defined"),
        ("model = 7\n", "'model' is a int"),
    ],
)
def test_a_bad_spec_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_spec(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no spec file"):
        load_spec(tmp_path / "missing.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path / "bytes.py")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path)


def test_a_failed_spec_leaves_no_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(SpecError):
        load_spec(write(tmp_path, "raise ValueError\n"))
    assert {
        name for name in set(sys.modules) - before if name.startswith("everlearn_spec")
    } == set()


def test_a_bom_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.py"
    path.write_bytes(b'\xef\xbb\xbfimport everlearn\r\nmodel = everlearn.Model("m")\r\n')
    assert load_spec(path)[0] == Model("m")
