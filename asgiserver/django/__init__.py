"""What Django projects get: ``runserver``'s parts, system checks, and a live server for tests.

``runserver`` itself is in :mod:`asgiserver.management.commands.runserver`, where alone Django looks for it. Nothing of
the server imports this room, so that it costs nothing where there is no Django.
"""
