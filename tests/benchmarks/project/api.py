"""The view of Django REST framework."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

__all__ = ["Hello"]


class Hello(APIView):
    #: The framework's own would look for the session of each request in the database.
    authentication_classes = ()

    def get(self, request: Request, number: int, words: str) -> Response:
        return Response({"hello": request.get_full_path()})
