"""Imports all that a server imports, and loads its kernels, once, for those forked from here."""

import numpy as np
import sklearn.linear_model  # noqa: F401
import uvicorn.lifespan.on
import uvicorn.loops.auto
import uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto  # noqa: F401

import everlearn
import everlearn.cli.app
import everlearn.learners.native.linear
import everlearn.serving.app
import everlearn.workspace

_X = np.linspace(-1.0, 1.0, 20).reshape(-1, 1)
everlearn.learn(everlearn.learners.LogisticRegression(), _X, (_X[:, 0] > 0.0).astype(int))
