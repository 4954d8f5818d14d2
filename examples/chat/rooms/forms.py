from __future__ import annotations

import re

from django import forms
from django.contrib.auth import get_user_model
from django.utils.text import slugify

from .models import Room

#: Most rooms that there may be.
MAX_ROOMS = 50


class NameForm(forms.Form):
    """Signing in is choosing a name that nobody has now."""

    name = forms.CharField(min_length=2, max_length=24)

    def clean_name(self) -> str:
        user = get_user_model()
        name = re.sub(r"\s+", " ", user.normalize_username(self.cleaned_data["name"]))
        if not name.isprintable():
            raise forms.ValidationError("This name has characters that nobody can see.")
        if user.objects.filter(username__iexact=name).exists():
            raise forms.ValidationError("Somebody has this name already.")
        return name


class RoomForm(forms.ModelForm):
    class Meta:
        model = Room
        fields = ["name", "topic"]

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        self.instance.slug = slugify(name)[:50]
        if not self.instance.slug:
            raise forms.ValidationError("Use at least one letter from a to z, or a digit.")
        if Room.objects.filter(slug=self.instance.slug).exists():
            raise forms.ValidationError("There is such a room already.")
        if Room.objects.count() >= MAX_ROOMS:
            raise forms.ValidationError("There are rooms enough.")
        return name
