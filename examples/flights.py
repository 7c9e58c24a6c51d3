"""What the model of late flights is: `everlearn train examples/flights.py flights/*.csv`."""

import everlearn as el

model = el.Model(
    "flight-delays",
    schema=el.Schema(target="late", time="scheduled", label_time="arrived"),
    strategy=el.Strategy(memory=el.Reservoir(20_000)),
    gate=el.NonInferior("log_loss", margin=0.02),
)
