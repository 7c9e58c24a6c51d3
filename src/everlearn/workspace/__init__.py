"""The workspace: the only place that wires storage, registry, jobs and data together."""

from everlearn.workspace.answers import Answer
from everlearn.workspace.model import ModelHandle
from everlearn.workspace.places import BLOBS_NAME, DATABASE_NAME, DEFAULT, places
from everlearn.workspace.workspace import Workspace, open

__all__ = [
    "BLOBS_NAME",
    "DATABASE_NAME",
    "DEFAULT",
    "Answer",
    "ModelHandle",
    "Workspace",
    "open",
    "places",
]
