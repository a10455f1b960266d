"""The OpenAPI document as a page for people: plain HTML, one file, nothing from elsewhere and no script. Pure."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

HTML = "text/html; charset=utf-8"
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:62rem;padding:1rem 1.5rem;color:#222;background:#fff}
h1{margin-bottom:0}h2{border-bottom:1px solid #ccc;margin-top:2.5rem}
h3{margin:2rem 0 .25rem;font-size:1rem}code,pre{font:14px/1.4 ui-monospace,monospace}
pre{background:#f4f4f4;padding:.75rem;overflow-x:auto}.m{text-transform:uppercase;font-weight:700;color:#075}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}
nav a{margin-right:1rem}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#262626}a{color:#8bf}.m{color:#6c9}}
"""
_VERBS = ("get", "post", "put", "patch", "delete")


def page(document: dict[str, Any]) -> bytes:
    """Write the page."""
    return "".join(_page(document)).encode()


def _page(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>'
    yield f"<h1>{title}</h1><p>{escape(info['description'])} <a href='openapi.json'>openapi.json</a></p>"
    tags: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, item in document["paths"].items():
        for verb in _VERBS:
            if verb in item:
                tag = next(iter(item[verb].get("tags", ())), "Other")
                tags.setdefault(tag, []).append((verb, path, item[verb]))
    yield "<nav>" + "".join(f'<a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag in tags) + "</nav>"
    for tag, operations in tags.items():
        yield f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>'
        for verb, path, operation in operations:
            yield from _operation(verb, path, operation)
    yield '<h2 id="schemas">Schemas</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="schema-{_anchor(name)}"><summary>{escape(name)}</summary>{_pre(schema)}</details>'


def _operation(verb: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<h3><span class="m">{verb}</span> <code>{escape(path)}</code></h3>'
    yield f"<p>{escape(operation.get('summary', ''))}. {escape(operation.get('description', ''))}</p>"
    parameters = [each for each in operation.get("parameters", ()) if "name" in each]
    if parameters:
        yield "<table>" + "".join(map(_parameter, parameters)) + "</table>"
    if "requestBody" in operation:
        yield from _contents("Body", operation["requestBody"].get("content", {}))
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if status.startswith("2") and content:
            yield from _contents(status, content)
    refused = [
        f"{status} {response.get('description', '')}"
        for status, response in operation["responses"].items()
        if not status.startswith("2")
    ]
    if refused:
        listed = "".join(f"<li>{escape(each)}" for each in refused)
        yield f"<details><summary>Otherwise</summary><ul>{listed}</ul></details>"


def _parameter(given: dict[str, Any]) -> str:
    name = f"<code>{escape(given['name'])}</code>"
    return f"<tr><td>{name}<td>{escape(given['in'])}<td>{escape(given.get('description', ''))}"


def _contents(title: str, content: dict[str, Any]) -> Iterator[str]:
    for media_type, each in content.items():
        name = each.get("schema", {}).get("$ref", "").rpartition("/")[2]
        link = f': <a href="#schema-{_anchor(name)}">{escape(name)}</a>' if name else ""
        example = each.get("example", next(iter(each.get("examples", {"": {}}).values())).get("value"))
        yield f"<p>{escape(title)}, {escape(media_type)}{link}</p>"
        if example is not None:
            yield _pre(example)


def _pre(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{escape(text)}</pre>"


def _anchor(text: str) -> str:
    return escape(text.replace(" ", "-").lower(), quote=True)
