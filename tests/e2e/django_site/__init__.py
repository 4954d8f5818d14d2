"""A Django project for the tests of Django: ``running.py`` starts it, ``views.py`` has what the tests ask for."""
