"""What serving costs, measured beside the other ASGI servers: ``python -m tests.benchmarks``."""
