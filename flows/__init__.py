"""What runs: each module is a Bytewax dataflow with `build(settings)` and `flow`. `worker` runs one in a process."""
