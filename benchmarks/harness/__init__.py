"""What the benchmarks share: the job and its right answer, running and judging contenders, and writing results."""
