"""Grafana's dashboard, generated from the panels."""

from __future__ import annotations

import json
from typing import Any

from .panels import SECTIONS, Panel

Json = dict[str, Any]

COLUMNS = 24
DATA_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WINDOWS = ("30m", "1h", "6h", "1d")


def dashboard() -> str:
    """Return the dashboard's JSON, as in grafana/dashboards."""
    alerts = {
        "name": "Alerts",
        "datasource": DATA_SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Otpd.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "tagKeys": "severity",
    }
    whole = {
        "uid": "otpd",
        "title": "otpd",
        "description": "One-time passwords. Remedies are in docs/runbook.md.",
        "tags": ["otpd"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables()},
        "annotations": {"list": [alerts]},
        "panels": panels(),
    }
    return compact(whole) + "\n"


def compact(value: Any, indent: str = "") -> str:
    """Return JSON in which a value is on one line if it is short."""
    line = json.dumps(value)
    if len(indent) + len(line) <= 100 or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, list):
        parts = [compact(item, inner) for item in value]
    else:
        parts = [f"{json.dumps(key)}: {compact(item, inner)}" for key, item in value.items()]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    separator = f",\n{inner}"
    return f"{opening}\n{inner}{separator.join(parts)}\n{indent}{closing}"


def variables() -> list[Json]:
    """Return the choices above the panels."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource"}
    return [
        {**source, "query": "prometheus", "current": {}, "hide": 0},
        choice("replica", "Replica", 'label_values(up{job="otpd"}, instance)'),
        choice("provider", "Provider", "label_values(otpd_provider_breaker_state, provider)"),
        choice("channel", "Channel", "label_values(otpd_codes_sent_total, channel)"),
        {
            "name": "window",
            "label": "Window",
            "type": "custom",
            "query": ",".join(WINDOWS),
            "current": {"text": WINDOWS[0], "value": WINDOWS[0]},
            "options": [
                {"text": window, "value": window, "selected": window == WINDOWS[0]}
                for window in WINDOWS
            ],
            "hide": 0,
        },
    ]


def choice(name: str, label: str, query: str) -> Json:
    """Return a choice among the values of a label, by default all of them."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def panels() -> list[Json]:
    """Return the panels of all sections, in rows of 24 columns."""
    made: list[Json] = []
    top = 0
    for section in SECTIONS:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        row = {"id": len(made) + 1, "type": "row", "title": section.title, "collapsed": False}
        made.append({**row, "gridPos": place, "panels": []})
        top, left, height = top + 1, 0, 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                left, top = 0, top + height
            height = 4 if panel.kind == "number" else 7
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            made.append(panel_json(panel, len(made) + 1, place))
            left += panel.width
        top += height
    return made


def panel_json(panel: Panel, number: int, place: dict[str, int]) -> Json:
    """Return one panel in the format of Grafana."""
    kinds = {"number": "stat", "states": "state-timeline"}
    is_instant = panel.kind == "number"
    return {
        "id": number,
        "type": kinds.get(panel.kind, "timeseries"),
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": DATA_SOURCE,
                "expr": expression,
                "legendFormat": legend or "__auto",
                "instant": is_instant,
                "range": not is_instant,
            }
            for position, (expression, legend) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": field_defaults(panel), "overrides": []},
        "options": OPTIONS.get(panel.kind, OPTIONS["lines"]),
    }


def field_defaults(panel: Panel) -> Json:
    """Return the format and the colours of values."""
    is_graph = panel.kind in ("lines", "areas")
    defaults: Json = {"unit": panel.unit}
    if is_graph:
        defaults["min"] = 0
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.unit == "percentunit" and panel.kind == "number":
        defaults["decimals"] = 2
    if panel.steps:
        steps = [{"value": value, "color": colour} for value, colour in panel.steps]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.states:
        options = {
            value: {"text": text, "color": colour, "index": position}
            for position, (value, text, colour) in enumerate(panel.states)
        }
        defaults["mappings"] = [{"type": "value", "options": options}]
    if is_graph:
        is_stacked = panel.kind == "areas"
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "fillOpacity": 40 if is_stacked else 5,
            "stacking": {"mode": "normal" if is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    return defaults


OPTIONS: dict[str, Json] = {
    "number": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
    },
    "states": {
        "mergeValues": True,
        "showValue": "auto",
        "rowHeight": 0.8,
        "legend": {"showLegend": False},
    },
    "lines": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}
