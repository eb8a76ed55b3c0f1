"""The benchmark: tasks, methods, measurement and reports behind tools/benchmark.py."""
