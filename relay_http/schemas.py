"""Pieces of OpenAPI 3.1 that fragments of dialects are made of. Pure."""

from collections.abc import Mapping, Sequence

Schema = Mapping[str, object]

TEXT: Schema = {"type": "string"}
NEEDED_TEXT: Schema = {"type": "string", "minLength": 1}
TIME: Schema = {"type": "string", "format": "date-time"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
EMAIL: Schema = {"type": "string", "description": "`a@b` or `Name <a@b>`.", "minLength": 1}
BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
NOTHING: Schema = {"enum": [None, False, "", [], {}]}


def one_of(words: Sequence[str]) -> Schema:
    """A string that is one of these."""
    return {"type": "string", "enum": list(words)}


def or_null(schema: Schema) -> Schema:
    """What may be null, too."""
    return {**schema, "type": [schema["type"], "null"]}


def or_nothing(schema: Schema) -> Schema:
    """What means absent when it is null, false or empty."""
    return {"anyOf": [schema, NOTHING]}


def not_yet(description: str) -> Schema:
    """What is refused, but for the forms that mean absent."""
    return {"description": f"{description} Not supported yet.", **NOTHING}


def array(items: Schema, most: int | None = None, **more: object) -> Schema:
    """An array of these, of `most` at most."""
    return {"type": "array", "items": items, **({"maxItems": most} if most else {}), **more}


def map_of_texts(most: int | None = None, **more: object) -> Schema:
    """An object of strings."""
    limit = {"maxProperties": most} if most else {}
    return {"type": "object", "additionalProperties": TEXT, **limit, **more}


def members(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """An object of these members, and of no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": dict(properties), "additionalProperties": False}


def ref(name: str) -> Schema:
    """A schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_of(name: str, example: object) -> Schema:
    """A JSON body of a schema of the document."""
    return {"application/json": {"schema": ref(name), "example": example}}


def in_query(name: str, schema: Schema, description: str = "") -> Schema:
    """A query parameter that need not be given."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def in_path(name: str, example: str) -> Schema:
    """A part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": NEEDED_TEXT, "example": example}


def page_size(default: int, most: int) -> Schema:
    """How many a list shows."""
    return in_query("limit", {"type": "integer", "minimum": 1, "maximum": most, "default": default})
