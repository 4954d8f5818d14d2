"""Lines: how the command line sets logging up (:mod:`.setup`), and one for each request (:mod:`.access`).

The library itself configures no handler and no level: loggers ``asgiserver``, ``asgiserver.access`` and
``asgiserver.wire`` are the host's to configure. A peer's mistake is INFO without a traceback, an application's is ERROR
with one, once.
"""
