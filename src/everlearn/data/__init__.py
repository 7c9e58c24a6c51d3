"""What is learned from: sources, increments, guards, hold-outs. Open them with `open_sources`."""
