"""Where a model can be timed, a file each: what `runtimes:` of benchmark.latency names."""
