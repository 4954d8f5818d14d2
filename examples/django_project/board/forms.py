from __future__ import annotations

from django import forms

from .models import Entry


class EntryForm(forms.ModelForm):
    class Meta:
        model = Entry
        fields = ["text"]
        widgets = {"text": forms.TextInput({"placeholder": "Leave a line", "autocomplete": "off"})}


class UploadForm(forms.Form):
    file = forms.FileField(allow_empty_file=True)
