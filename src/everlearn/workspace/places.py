"""Where the database and the blobs of a workspace are."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from everlearn.base import InputError

DEFAULT = ".everlearn"
DATABASE_NAME, BLOBS_NAME = "everlearn.db", "blobs"


def places(location: str | os.PathLike[str]) -> tuple[str, str]:
    """(URL of the database, URL of the blobs) of a workspace's location."""
    text = os.fspath(location)
    if "://" not in text:
        folder = Path(text).absolute()
        return f"sqlite:///{folder / DATABASE_NAME}", str(folder / BLOBS_NAME)
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as error:
        raise InputError(f"{text!r} is no URL of a database") from error
    blobs_url = url.query.get("blobs")
    if not blobs_url or not isinstance(blobs_url, str):
        raise InputError(
            f"{url.render_as_string()!r} does not say where the blobs are: add"
            " ?blobs=s3://bucket/prefix or ?blobs=/folder"
        )
    database = url.difference_update_query(["blobs"])
    return database.render_as_string(hide_password=False), blobs_url
