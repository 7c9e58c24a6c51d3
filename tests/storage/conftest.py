"""The databases and blob stores on which the tests of this room run."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlearn.base import StorageError
from everlearn.testing.database import temporary_schema

_buckets = itertools.count()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    try:
        with temporary_schema() as url:
            yield url
    except StorageError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/workspace.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto's server is needed for S3")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the store is told of by the environment, as it is for users."""
    import urllib.request

    bucket = f"bucket-{os.getpid()}-{next(_buckets)}"
    request = urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/x")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def blobs_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "blobs")
    url: str = request.getfixturevalue("s3_url")
    return url
