from __future__ import annotations

from django.db import models


class Note(models.Model):
    text = models.CharField(max_length=100)
    file = models.FileField(upload_to="notes", blank=True)

    def __str__(self) -> str:
        return self.text
