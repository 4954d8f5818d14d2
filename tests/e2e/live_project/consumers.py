from __future__ import annotations

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from .models import Line


class Chat(WebsocketConsumer):
    """What one says, all hear, and all who come later: in threads, with the database."""

    groups = ["chat"]

    def connect(self) -> None:
        self.accept()
        for line in Line.objects.order_by("id"):
            self.send(text_data=line.text)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        Line.objects.create(text=text_data)
        async_to_sync(self.channel_layer.group_send)("chat", {"type": "said", "text": text_data})

    def said(self, event: dict[str, str]) -> None:
        self.send(text_data=event["text"])

    def disconnect(self, code: int) -> None:
        Line.objects.create(text="somebody left")


class Counter(AsyncWebsocketConsumer):
    """Says how many lines there are, by the asynchronous interface of the database."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise LookupError("the consumer fails")
        await self.send(text_data=str(await Line.objects.acount()))
