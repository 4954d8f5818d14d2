"""The log of a whole server, as whatever collects logs reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from .server import ServerProcess, wait_for

APPLICATION = """
import asyncio, logging, warnings

async def app(scope, receive, send):
    assert scope["type"] == "http"
    logging.getLogger("shop").warning("asked")
    warnings.warn("old")
    await asyncio.sleep(0.6)
    raise ValueError(scope["extensions"]["asgiserver"]["request_id"])
"""
ID = "of-the-proxy-1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
def test_each_line_is_json_and_those_of_a_request_have_its_id(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(APPLICATION)
    args = ("--log-format", "json", "--workers", "1", "--proxy-headers", "--slow-request-log", "0.1", "-p", "0")
    with ServerProcess(*args, "--app-dir", str(tmp_path), "slow:app") as server:
        assert httpx.get(server.url, headers={"X-Request-ID": ID}).status_code == 500
        wait_for(lambda: "Traceback" in server.output())
    lines: list[dict[str, Any]] = [json.loads(line) for line in server.output().splitlines()]
    ours = [line for line in lines if line.get("request_id") == ID]
    access = [line for line in ours if "logger" not in line]
    assert [(line["method"], line["path"], line["status"]) for line in access] == [("GET", "/", 500)]
    rest = [line for line in ours if "logger" in line]
    assert [line["logger"] for line in rest] == ["shop", "py.warnings", "asgiserver", "asgiserver", "asgiserver"]
    assert {line["worker"] for line in rest} == {1}
    under_way, took, failed = (line for line in rest if line["logger"] == "asgiserver")
    assert under_way["message"].startswith("GET '/' is under way for 0.")
    assert "slow.py:8 app" in under_way["message"]
    assert took["message"].endswith("status 500")
    assert failed["exception"].endswith(f"ValueError: {ID}")
    assert {line["process"] for line in rest} == {failed["process"]}
    assert {line["message"] for line in lines if "worker" not in line and "message" in line} > {"Stopping"}
