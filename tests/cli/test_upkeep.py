"""`export`, `import`, `copy`, `backup`, `gc` and the queue."""

from __future__ import annotations

from everlearn.cli import ERROR
from tests.cli.conftest import Shell


def test_a_version_travels_as_one_file(trained: Shell) -> None:
    file, other = trained.folder / "two.everlearn", trained.folder / "other"
    trained("export", "bills", 2, file)
    assert file.stat().st_size > 0
    trained.json("import", file, workspace=other)
    [there] = trained.json("versions", "bills", workspace=other)
    here = trained.json("versions", "bills")[1]
    assert there["state_digest"] == here["state_digest"]
    assert there["aliases"] == []


def test_a_damaged_file_is_refused(trained: Shell) -> None:
    file = trained.folder / "two.everlearn"
    trained("export", "bills", 2, file)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    for place in range(middle, middle + 400):  # more than what stands between two parts
        content[place] ^= 1
    file.write_bytes(content)
    trained("import", file, code=ERROR, workspace=trained.folder / "other")


def test_a_copy_has_the_same_versions(trained: Shell) -> None:
    other = trained.folder / "copy"
    other.mkdir()
    told = trained("copy", f"sqlite:///{other}/everlearn.db", other / "blobs")
    assert "blobs: " in told and "{" not in told
    assert trained.json("versions", "bills", workspace=other) == trained.json("versions", "bills")


def test_a_backup_is_a_workspace(trained: Shell) -> None:
    other = trained.folder / "backup"
    trained("backup", other)
    assert trained.json("versions", "bills", workspace=other) == trained.json("versions", "bills")
    assert '"value"' in trained("predict", "bills", '{"a": 1, "b": 1}', workspace=other)


def test_garbage_collection_keeps_what_is_needed(trained: Shell) -> None:
    before = trained.json("versions", "bills")
    assert isinstance(trained.json("gc", "--dry-run"), dict)
    assert "would be removed" in trained("gc", "--dry-run")
    trained("gc")
    assert trained.json("versions", "bills") == before
    assert '"value"' in trained("predict", "bills", '{"a": 1, "b": 1}')


def test_retention_drops_the_states_of_old_versions(trained: Shell) -> None:
    words = ("gc", "--keep-last", 1, "--champion-days", 0)
    assert trained.json(*words, "--dry-run")["dropped"] == {"bills": [1]}
    assert "dropped: bills [1]" in trained(*words)
    first, second = trained.json("versions", "bills")
    assert first["dropped_at"] and not second["dropped_at"]
    trained("predict", "bills", '{"a": 1, "b": 1}', "--version", 1, code=ERROR)
    assert '"value"' in trained("predict", "bills", '{"a": 1, "b": 1}')


def test_jobs_are_listed_and_shown(trained: Shell) -> None:
    first, second = trained.json("job", "list")
    assert (first["state"], first["version"]) == ("done", 1)
    assert second["base_version"] == 1
    assert trained.json("job", "show", second["id"])["model"] == "bills"
    assert "more.csv" in trained("job", "show", second["id"])
    assert "bills" in trained("job", "list", "--model", "bills")


def test_an_unknown_job(trained: Shell) -> None:
    trained("job", "show", 99, code=ERROR)
    assert "99" in trained.error


def test_a_job_that_is_done_is_not_retried(trained: Shell) -> None:
    trained("job", "retry", 1, code=ERROR)
    trained("job", "skip", 1, code=ERROR)
