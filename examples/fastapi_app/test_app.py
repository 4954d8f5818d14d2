"""Run them in the clone's folder: ``python -m pytest examples/fastapi_app``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from app import app
from websockets.sync.client import connect

from asgiserver.testing import LiveServer


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """The application on a free port; an exception that it raises fails the test."""
    with LiveServer(app) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_a_parcel_is_kept(client: httpx.Client) -> None:
    sent = client.post("/parcels", json={"to": "Ada"})
    assert (sent.status_code, sent.json()) == (201, {"number": 1, "to": "Ada", "status": "packed"})
    assert [parcel["to"] for parcel in client.get("/parcels").json()] == ["Ada"]


def test_it_is_delivered_after_the_response(server: LiveServer, client: httpx.Client) -> None:
    with connect(f"{server.ws_url}/watch") as watch:
        assert client.post("/parcels", json={"to": "Grace"}).json()["status"] == "packed"
        seen = [json.loads(watch.recv(10))["status"] for _ in range(2)]
    assert seen == ["packed", "delivered"]
    assert client.get("/parcels/1").json()["status"] == "delivered"


def test_one_without_an_address_is_refused(client: httpx.Client) -> None:
    assert client.post("/parcels", json={"to": ""}).status_code == 422
    assert client.get("/parcels").json() == []


def test_one_that_nobody_sent_is_not_found(client: httpx.Client) -> None:
    assert client.get("/parcels/7").status_code == 404
