from django.db import models


class Line(models.Model):
    text = models.CharField(max_length=200)

    class Meta:
        app_label = "live_project"
