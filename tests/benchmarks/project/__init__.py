"""The Django project that is measured: as ``startproject`` writes it, with views of a line or two.

``settings`` are those of a new project in production; ``answers`` says what the views answer, for whoever checks it,
without importing Django; ``python -m tests.benchmarks.project`` makes the database.
"""
