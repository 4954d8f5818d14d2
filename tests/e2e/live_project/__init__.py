"""A Django project with a small chat, and test cases of its own that run in a process of their own."""
