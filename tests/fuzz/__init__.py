"""Whatever reads a peer's bytes, fed with changed copies of a corpus.

:mod:`.targets` says what must hold for any bytes, :mod:`.engine` makes them, and ``corpus/`` has a folder for each
target. ``python -m tests.fuzz`` runs all.
"""
