"""The parts for Django projects: those of ``runserver``, system checks, and a live server for tests.

``runserver`` itself is in :mod:`asgiserver.management.commands.runserver`, because Django looks for it only there. The
server imports nothing of this package, so that it costs nothing where there is no Django.
"""
