"""Logging: how the command line sets it up (:mod:`.setup`), its lines (:mod:`.formatters`), the access log
(:mod:`.access`).

The library itself configures no handler and no level: the host configures the loggers ``asgiserver``,
``asgiserver.access`` and ``asgiserver.wire``. A peer's mistake is logged at INFO without a traceback, an application's
at ERROR with one, once.
"""
