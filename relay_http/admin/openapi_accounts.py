"""The management of accounts in OpenAPI 3.1: keys, tenants, and who did what (docs/api.md)."""

from mta.config import DEFAULT_POOL
from relay_http.admin import keys, tenants
from relay_http.describing import READING, Body, Operation, described, in_path, in_query, schemas_of

_TAG = "Accounts"
_ID = "AaH7ugABdbWHsNpfu8EmnA"
_AT = 1_800_000_000.0
_TEXT: dict[str, object] = {"type": "string"}
_NULL_TEXT: dict[str, object] = {"type": ["string", "null"]}
_NUMBER: dict[str, object] = {"type": "number"}
_NULL_TIME: dict[str, object] = {"type": ["number", "null"]}
_FLAG: dict[str, object] = {"type": "boolean"}
_TEXTS: dict[str, object] = {"type": "array", "items": _TEXT}
_LISTING = (400, 401, 403, 503)
_CHANGING = (400, 401, 403, 404, 409, 413, 429, 503, 507)
_KEY_PATH = in_path("id", "The key's ID.", _ID)
_TENANT_PATH = in_path("name", "The tenant's name.", "shop")
_LIMIT = in_query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})
_AFTER = in_query("after", "The `next` of the page before.")
_OF_TENANT = in_query("tenant", "Of one tenant; for operators.")
_KEY = {
    "id": _ID,
    "name": "the shop",
    "tenant": "shop",
    "operator": False,
    "scopes": ["send"],
    "grants": ["send"],
    "networks": ["192.0.2.0/24"],
    "rate": "1200/60",
    "once": 0.0,
    "sandbox": False,
    "created_at": _AT,
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
}
_MADE = {**_KEY, "key": f"SG.{_ID}.{'x' * 43}"}
_TENANT = {
    "name": "shop",
    "weight": 1,
    "pool": DEFAULT_POOL,
    "tls": None,
    "rate": None,
    "backlog_messages": 0,
    "backlog_octets": 0,
    "created_at": _AT,
}
_ACTION = {
    "at": _AT,
    "by": f"key {_ID}",
    "address": "192.0.2.7",
    "action": "keys.create",
    "tenant": "shop",
    "on": _ID,
    "details": {"scopes": "send"},
    "result": "done",
}


def _object(optional: tuple[str, ...] = (), /, **properties: object) -> dict[str, object]:
    required = [each for each in properties if each not in optional]
    return {"type": "object", "required": required, "properties": properties}


def _ref(name: str) -> dict[str, object]:
    return {"$ref": f"#/components/schemas/{name}"}


def _asked() -> dict[str, object]:
    """Make the schemas of bodies, whose fields are all known."""
    found = schemas_of((keys.Asked, keys.Changed, keys.Rotated), "AdminKey")
    found |= schemas_of((tenants.Asked, tenants.Changed), "AdminTenant")
    for schema in found.values():
        assert isinstance(schema, dict)
        schema["additionalProperties"] = False
    return found


SCHEMAS: dict[str, object] = {
    **_asked(),
    "AdminKey": _object(
        ("key", "instead_of"),
        **dict.fromkeys(("id", "name"), _TEXT),
        tenant=_NULL_TEXT,
        operator=_FLAG,
        **dict.fromkeys(("scopes", "grants", "networks"), _TEXTS),
        rate=_NULL_TEXT,
        once=_NUMBER,
        sandbox=_FLAG,
        created_at=_NUMBER,
        **dict.fromkeys(("expires_at", "revoked_at", "last_used_at"), _NULL_TIME),
        **dict.fromkeys(("key", "instead_of"), _TEXT),
    ),
    "AdminKeys": _object(keys={"type": "array", "items": _ref("AdminKey")}, next=_NULL_TEXT),
    "AdminTenant": _object(
        name=_TEXT,
        weight=_NUMBER,
        pool=_TEXT,
        **dict.fromkeys(("tls", "rate"), _NULL_TEXT),
        **dict.fromkeys(("backlog_messages", "backlog_octets", "created_at"), _NUMBER),
    ),
    "AdminTenants": _object(tenants={"type": "array", "items": _ref("AdminTenant")}, next=_NULL_TEXT),
    "AdminActions": _object(
        actions={
            "type": "array",
            "items": _object(
                at=_NUMBER,
                **dict.fromkeys(("by", "address", "action", "on", "result"), _TEXT),
                details={"type": "object", "additionalProperties": _TEXT},
                tenant=_NULL_TEXT,
            ),
        },
        next=_NULL_TEXT,
    ),
}

PATHS: dict[str, object] = {
    "/admin/v1/keys": {
        "get": described(
            Operation(
                name="listKeys",
                tag=_TAG,
                summary="List keys, oldest first, those that have ended too",
                parameters=[_LIMIT, _AFTER, _OF_TENANT],
                answers={200: Body(schema="AdminKeys", example={"keys": [_KEY], "next": None})},
                refusals=_LISTING,
            )
        ),
        "post": described(
            Operation(
                name="makeKey",
                tag=_TAG,
                summary="Make a key, whose text is answered once",
                body=Body(schema="AdminKeyAsked", example={"scopes": ["send"], "name": "the shop"}),
                answers={201: Body(schema="AdminKey", example=_MADE)},
                refusals=_CHANGING,
            )
        ),
    },
    "/admin/v1/keys/{id}": {
        "get": described(
            Operation(
                name="getKey",
                tag=_TAG,
                summary="Show a key",
                parameters=[_KEY_PATH],
                answers={200: Body(schema="AdminKey", example=_KEY)},
                refusals=READING,
            )
        ),
        "patch": described(
            Operation(
                name="changeKey",
                tag=_TAG,
                summary="Give a key another name, or other scopes",
                parameters=[_KEY_PATH],
                body=Body(schema="AdminKeyChanged", example={"name": "the old shop"}),
                answers={200: Body(schema="AdminKey", example=_KEY)},
                refusals=_CHANGING,
            )
        ),
        "delete": described(
            Operation(
                name="revokeKey",
                tag=_TAG,
                summary="Revoke a key",
                parameters=[_KEY_PATH],
                answers={204: None},
                refusals=_CHANGING,
            )
        ),
    },
    "/admin/v1/keys/{id}/rotate": {
        "post": described(
            Operation(
                name="rotateKey",
                tag=_TAG,
                summary="Make a key that is good for the same, and let the old one end",
                parameters=[_KEY_PATH],
                body=Body(schema="AdminKeyRotated", example={"overlap": 3600}, required=False),
                answers={201: Body(schema="AdminKey", example={**_MADE, "instead_of": _ID})},
                refusals=_CHANGING,
            )
        )
    },
    "/admin/v1/tenants": {
        "get": described(
            Operation(
                name="listTenants",
                tag=_TAG,
                summary="List tenants by name; for operators",
                parameters=[_LIMIT, _AFTER],
                answers={200: Body(schema="AdminTenants", example={"tenants": [_TENANT], "next": None})},
                refusals=_LISTING,
            )
        ),
        "post": described(
            Operation(
                name="makeTenant",
                tag=_TAG,
                summary="Make a tenant; for operators",
                body=Body(schema="AdminTenantAsked", example={"name": "shop"}),
                answers={201: Body(schema="AdminTenant", example=_TENANT)},
                refusals=_CHANGING,
            )
        ),
    },
    "/admin/v1/tenants/{name}": {
        "get": described(
            Operation(
                name="getTenant",
                tag=_TAG,
                summary="Show a tenant; for operators",
                parameters=[_TENANT_PATH],
                answers={200: Body(schema="AdminTenant", example=_TENANT)},
                refusals=READING,
            )
        ),
        "patch": described(
            Operation(
                name="changeTenant",
                tag=_TAG,
                summary="Change a tenant; for operators",
                parameters=[_TENANT_PATH],
                body=Body(schema="AdminTenantChanged", example={"rate": "1200/60"}),
                answers={200: Body(schema="AdminTenant", example=_TENANT)},
                refusals=_CHANGING,
            )
        ),
    },
    "/admin/v1/audit": {
        "get": described(
            Operation(
                name="listActions",
                tag=_TAG,
                summary="Tell who did what, the latest first",
                parameters=[
                    in_query("since", "Then or later: a time with its zone, or absolute seconds."),
                    in_query("before", "The `next` of the page before."),
                    _LIMIT,
                    _OF_TENANT,
                ],
                answers={200: Body(schema="AdminActions", example={"actions": [_ACTION], "next": None})},
                refusals=(*_LISTING, 429),
            )
        )
    },
}
