"""Imports all that a server imports, once, for those that are forked from this process."""

import sklearn.linear_model  # noqa: F401
import uvicorn.lifespan.on
import uvicorn.loops.auto
import uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto  # noqa: F401

import everlearn.cli.app
import everlearn.learners.native.linear
import everlearn.serving.app
import everlearn.workspace  # noqa: F401
