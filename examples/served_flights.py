"""The model of late flights as it is served: `everlearn serve examples/served_flights.py`."""

import everlearn as el

model = el.Model(
    "flight-delays",
    learner=el.learners.LogisticRegression(optimizer="adagrad"),
    schema=el.Schema(target="late", time="scheduled"),
    strategy=el.Strategy(order=el.Shuffle(60_000)),
    triggers=[
        el.Drift(window=5000, effect=0.08),
        el.Volume(12_000),
    ],
    gate=el.NonInferior("log_loss", margin=0.02),
    rollout=el.Canary([10, 50], labels=300, margin=0.15),
    guards=el.Guards(margin=0.002),
)
