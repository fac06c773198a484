"""The ways to do the job, each a module that the harness starts as a process of its own."""
