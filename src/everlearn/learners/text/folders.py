"""Folders in which the transformers library keeps a model: found and read without a network."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everlearn.base import Json, MissingDependencyError, SpecError, digest_bytes

if TYPE_CHECKING:
    from torch import nn

INSTALL = "pip install everlearn[text]"


def found(place: str) -> Path:
    """The file or folder of this name: a path, or "package:path" for what lies in an installed
    package, wherever that is on this machine.

    Raises:
        SpecError: it is not there. Nothing is ever fetched.

    >>> found("everlearn:learners/text").name
    'text'
    """
    path = Path(place)
    package, colon, inner = str(place).partition(":")
    if colon and not path.exists():
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        homes = list(spec.submodule_search_locations or ()) if spec else []
        path = Path(homes[0]) / inner if homes else path
    if not path.exists():
        raise SpecError(
            f"there is no file or folder {str(place)!r}; give a path, or 'package:path' for one in"
            " an installed package (models are read from disk, never fetched)"
        )
    return path


def config_of(place: str) -> Json:
    """What `config.json` in a folder says.

    Raises:
        SpecError: there is none, or it is not JSON.
    """
    path = found(place) / "config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(f"{str(path)!r} is no configuration of a model: {error}") from error


def weights_digest(place: str) -> str:
    """SHA-256 of the weights: of a file, or of the .safetensors files of a folder."""
    path = found(place)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files:
        raise SpecError(f"{str(path)!r} has no .safetensors file; other forms are not read")
    stamps = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _digest(stamps)


@lru_cache(maxsize=64)
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    return digest_bytes(*(Path(name).read_bytes() for name, _, _ in stamps))


def load(place: str, kind: str, dropout: float) -> nn.Module:
    """The model of a folder, with its weights in float32.

    Args:
        place: as `found` takes it.
        kind: the class of the transformers library that reads it ("AutoModel").
        dropout: share of what is left out in training, at every place where the model has some.

    Raises:
        SpecError: the folder holds no such model, or its weights are not in .safetensors.
        MissingDependencyError: transformers is not installed.
    """
    path = found(place)
    weights_digest(place)
    try:
        import transformers
    except ImportError as error:  # pragma: no cover
        raise MissingDependencyError(f"{kind} needs transformers: {INSTALL}") from error
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(str(path), **local)
        for name, value in vars(config).items():
            if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float):
                setattr(config, name, dropout)
        with _quietly(transformers):
            made: nn.Module = getattr(transformers, kind).from_pretrained(
                str(path), config=config, use_safetensors=True, dtype="float32", **local
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SpecError(f"{str(path)!r} holds no model for {kind}: {error}") from error
    return made


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without bars, and without a list of the weights that are not used."""
    say = transformers.utils.logging
    level, bars = say.get_verbosity(), say.is_progress_bar_enabled()
    say.set_verbosity(logging.ERROR)
    say.disable_progress_bar()
    try:
        yield
    finally:
        say.set_verbosity(level)
        if bars:
            say.enable_progress_bar()
