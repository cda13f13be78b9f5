"""/docs: the OpenAPI document as a page. It is whole as it comes: no script, no font, nothing from elsewhere."""

import json
from html import escape
from typing import Any

SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1c1c1c; }
h2 { margin-top: 2em; } summary { cursor: pointer; padding: .3em 0; } details { border-bottom: 1px solid #ddd; }
code, pre { font: 13px/1.4 ui-monospace, monospace; } pre { background: #f5f5f2; padding: 1em; overflow-x: auto; }
td { padding: .1em 1em .1em 0; vertical-align: top; } .method { display: inline-block; width: 4.5em; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #e4e4e4; } pre { background: #222; } details { border-color: #333; }
}
"""


def render(document: dict[str, Any]) -> str:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in by_tag.items()]
    schemas = "".join(_schema(name, value) for name, value in sorted(document["components"]["schemas"].items()))
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><h1>{title}</h1>'
        f"<p>{escape(document['info'].get('description', ''))}</p>"
        f'<p>As a document: <a href="openapi.json">openapi.json</a></p>'
        f"{''.join(parts)}<h2>Shapes</h2>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    rows = [("body", _named(content["schema"])) for content in body.values()]
    for status, answer in operation["responses"].items():
        kinds = ", ".join(_named(c["schema"]) for c in answer.get("content", {}).values())
        rows.append((escape(str(status)), f"{escape(answer['description'])} {kinds}"))
    table = "".join(f"<tr><td><code>{name}</code></td><td>{text}</td></tr>" for name, text in rows)
    return (
        f'<details><summary><code><span class="method">{escape(method.upper())}</span>{escape(path)}</code> '
        f"{escape(operation['summary'])}</summary><table>{table}</table></details>"
    )


def _named(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=2))
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary><pre>{text}</pre></details>'
