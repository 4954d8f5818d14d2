"""Parcels: a REST interface, a WebSocket that tells what becomes of them, and a task that delivers them.

Run it in the clone's folder, and open http://127.0.0.1:8000/docs::

    asgiserver --app-dir examples/fastapi_app app
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal, TypedDict

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from pydantic import BaseModel, Field


class NewParcel(BaseModel):
    to: str = Field(min_length=1, max_length=100)


class Parcel(NewParcel):
    number: int
    status: Literal["packed", "delivered"] = "packed"


class Office:
    """Keeps the parcels, and tells those who watch of each change."""

    def __init__(self) -> None:
        self.parcels: dict[int, Parcel] = {}
        self.numbers = itertools.count(1)
        self.watchers: set[asyncio.Queue[Parcel]] = set()

    def take(self, new: NewParcel) -> Parcel:
        parcel = Parcel(to=new.to, number=next(self.numbers))
        self.change(parcel)
        return parcel

    async def deliver(self, number: int) -> None:
        await asyncio.sleep(0.05)  # the way there
        self.change(self.parcels[number].model_copy(update={"status": "delivered"}))

    def change(self, parcel: Parcel) -> None:
        self.parcels[parcel.number] = parcel
        for watcher in self.watchers:
            watcher.put_nowait(parcel)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.Queue[Parcel]]:
        news: asyncio.Queue[Parcel] = asyncio.Queue()
        self.watchers.add(news)
        try:
            yield news
        finally:
            self.watchers.discard(news)


class State(TypedDict):
    office: Office


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Open the office before the first request, and end when the last is answered; each scope has the state."""
    yield {"office": Office()}


def the_office(request: Request) -> Office:
    return request.state.office


TheOffice = Annotated[Office, Depends(the_office)]
app = FastAPI(title="Parcels", lifespan=lifespan)


@app.post("/parcels", status_code=201)
async def send(new: NewParcel, office: TheOffice, tasks: BackgroundTasks) -> Parcel:
    """Take a parcel; it is delivered after the response."""
    parcel = office.take(new)
    tasks.add_task(office.deliver, parcel.number)
    return parcel


@app.get("/parcels")
async def parcels(office: TheOffice) -> list[Parcel]:
    return list(office.parcels.values())


@app.get("/parcels/{number}")
async def parcel(number: int, office: TheOffice) -> Parcel:
    if number not in office.parcels:
        raise HTTPException(404, "There is no such parcel.")
    return office.parcels[number]


@app.websocket("/watch")
async def watch(websocket: WebSocket) -> None:
    """Tell of each change, until the client leaves."""
    office: Office = websocket.state.office
    # First the queue, then the handshake: nothing that happens after it is missed.
    async with office.watching() as news:
        await websocket.accept()
        teller = asyncio.create_task(tell(websocket, news))
        try:
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            teller.cancel()


async def tell(websocket: WebSocket, news: asyncio.Queue[Parcel]) -> None:
    while True:
        await websocket.send_json((await news.get()).model_dump())
