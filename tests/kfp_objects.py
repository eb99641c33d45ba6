"""The objects that the Kubeflow Pipelines of the tests keeps: how one is made, found and listed, page by page."""

import base64
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.json_server import Refused

KEYS = {"display_name", "name", "id", "created_at", "description"}  # that a filter may name
LONGEST_PAGE = 200


@dataclass
class Request:
    method: str
    path: str  # below the API's prefix
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None  # JSON, or the bytes of an uploaded file


def text(body: dict, *keys: str) -> dict:
    return {key: body[key] for key in keys if body.get(key)}


def unique(kept: dict[str, dict], made: dict, *keys: str) -> None:
    if any(all(each.get(key) == made.get(key) for key in keys) for each in kept.values()):
        raise Refused(409, f"Already exist error: {made.get(keys[0])} already exists; the name must be unique")


def keep(kept: dict[str, dict], key: str, made: dict) -> dict:
    made |= {key: str(uuid.uuid4()), "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    kept[made[key]] = made
    return made


def with_status(run: dict, **changed: str) -> dict:
    run.update(changed)
    run["status"] = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[run["mode"]]
    return run


def in_namespace(kept: dict[str, dict], namespace: str) -> list[dict]:
    return [each for each in kept.values() if each.get("namespace", "") == namespace]


def page(request: Request, key: str, found: list[dict]) -> dict:
    chosen = [each for each in found if _passes(request.query.get("filter", ""), each)]
    size = min(int(request.query.get("page_size") or 20), LONGEST_PAGE)
    begin = int(base64.b64decode(request.query["page_token"])) if request.query.get("page_token") else 0
    shown = {key: chosen[begin : begin + size], "total_size": len(chosen)}
    if len(chosen) > begin + size:
        shown["next_page_token"] = base64.b64encode(str(begin + size).encode()).decode()
    return {name: value for name, value in shown.items() if value}


def _passes(condition: str, found: dict) -> bool:
    for each in json.loads(condition)["predicates"] if condition else ():
        value = each.get("stringValue", each.get("string_value"))
        if each["key"] not in KEYS or each["operation"] not in (1, "EQUALS") or value is None:
            raise Refused(400, f"Invalid input error: cannot filter by {each}")
        if found.get(each["key"]) != value:
            return False
    return True
