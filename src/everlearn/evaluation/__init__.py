"""How well: metrics over a stream, transfer, intervals, hold-outs and gates."""
