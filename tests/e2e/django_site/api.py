"""The same small interface by Django REST framework, and by django-ninja with both kinds of endpoint."""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import sync_to_async
from ninja import File, NinjaAPI, Schema
from ninja.files import UploadedFile
from rest_framework import routers, serializers, viewsets
from rest_framework.decorators import api_view, parser_classes
from rest_framework.parsers import FileUploadParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from .models import Note

ninja = NinjaAPI()


class Word(Schema):
    text: str
    number: int = 1


@ninja.post("/words")
def words(request: Any, word: Word) -> Any:
    return {"words": [word.text] * word.number, "notes": Note.objects.count() >= 0}


@ninja.post("/async-words")
async def async_words(request: Any, word: Word) -> Any:
    return {"words": [word.text] * word.number, "notes": await Note.objects.acount() >= 0}


@ninja.get("/where")
async def where(request: Any) -> Any:
    main = threading.main_thread()
    inside = await sync_to_async(threading.current_thread)()
    return {"on loop": threading.current_thread() is main, "inside": inside is main}


@ninja.post("/file")
def take_file(request: Any, file: File[UploadedFile]) -> Any:
    return {"name": file.name, "size": file.size}


class NoteSerializer(serializers.ModelSerializer[Note]):
    class Meta:
        model = Note
        fields = ["text"]


class NoteViewSet(viewsets.ModelViewSet[Note]):
    queryset = Note.objects.filter(text__startswith="api")
    serializer_class = NoteSerializer


@api_view(["POST"])
@parser_classes([JSONParser])
def double(request: Request) -> Response:
    return Response({"twice": request.data["number"] * 2})


@api_view(["POST"])
@parser_classes([FileUploadParser])
def upload(request: Request, filename: str) -> Response:
    file = request.data["file"]
    return Response({"name": file.name, "size": file.size})


router = routers.DefaultRouter()
router.register("notes", NoteViewSet)
