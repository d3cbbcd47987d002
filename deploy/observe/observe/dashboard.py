"""Makes Grafana's dashboard of the panels."""

from __future__ import annotations

import json
from typing import Any

from .panels import SECTIONS, Panel

Json = dict[str, Any]

PANEL_HEIGHT = 7
NUMBER_HEIGHT = 4
COLUMNS = 24
DATA_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> str:
    """The dashboard's JSON, as it lies in grafana/dashboards."""
    return (
        json.dumps(
            {
                "uid": "otpd",
                "title": "otpd",
                "description": "One-time passwords: docs/runbook.md tells what to do about it.",
                "tags": ["otpd"],
                "schemaVersion": 39,
                "version": 1,
                "editable": True,
                "graphTooltip": 1,
                "refresh": "30s",
                "time": {"from": "now-6h", "to": "now"},
                "timezone": "browser",
                "templating": {"list": variables()},
                "annotations": {"list": [firing_alerts()]},
                "panels": laid_out(),
            },
            indent=2,
        )
        + "\n"
    )


def variables() -> list[Json]:
    """What can be chosen above the panels."""
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
            "hide": 0,
        },
        choice("replica", "Replica", 'label_values(up{job="otpd"}, instance)'),
        choice("provider", "Provider", "label_values(otpd_provider_breaker_state, provider)"),
        choice("channel", "Channel", "label_values(otpd_codes_sent_total, channel)"),
        {
            "name": "window",
            "label": "Counted over",
            "type": "custom",
            "query": "30m,1h,6h,1d",
            "current": {"text": "30m", "value": "30m"},
            "options": [
                {"text": window, "value": window, "selected": window == "30m"}
                for window in ("30m", "1h", "6h", "1d")
            ],
            "hide": 0,
        },
    ]


def choice(name: str, label: str, query: str) -> Json:
    """A choice among the values of a label; all of them, unless somebody chooses."""
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


def firing_alerts() -> Json:
    """When each alert fired, as a mark in all panels."""
    return {
        "name": "Alerts",
        "datasource": DATA_SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Otpd.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "tagKeys": "severity",
    }


def laid_out() -> list[Json]:
    """The panels in rows of 24 columns, each question above its own."""
    made: list[Json] = []
    top = 0
    for section in SECTIONS:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": section.question,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        top += 1
        left = 0
        height = 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                left, top = 0, top + height
            height = NUMBER_HEIGHT if panel.kind == "number" else PANEL_HEIGHT
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            made.append(drawn(panel, len(made) + 1, place))
            left += panel.width
        top += height
    return made


def drawn(panel: Panel, number: int, place: dict[str, int]) -> Json:
    """One panel as Grafana describes it."""
    kinds = {"number": "stat", "states": "state-timeline"}
    return {
        "id": number,
        "type": kinds.get(panel.kind, "timeseries"),
        "title": panel.title,
        "description": panel.says,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": DATA_SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "instant": panel.kind == "number",
                "range": panel.kind != "number",
            }
            for position, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": field(panel), "overrides": []},
        "options": options(panel),
    }


def field(panel: Panel) -> Json:
    """How values are written and coloured."""
    defaults: Json = {"unit": panel.unit}
    if panel.kind in ("lines", "areas"):
        defaults["min"] = 0
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.unit == "percentunit" and panel.kind == "number":
        defaults["decimals"] = 2
    if panel.steps:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        }
    if panel.states:
        defaults["mappings"] = [
            {
                "type": "value",
                "options": {
                    value: {"text": text, "color": colour, "index": position}
                    for position, (value, text, colour) in enumerate(panel.states)
                },
            }
        ]
    if panel.kind in ("lines", "areas"):
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "fillOpacity": 40 if panel.kind == "areas" else 5,
            "stacking": {"mode": "normal" if panel.kind == "areas" else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    return defaults


def options(panel: Panel) -> Json:
    """What belongs to the kind of panel."""
    if panel.kind == "number":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
        }
    if panel.kind == "states":
        return {
            "mergeValues": True,
            "showValue": "auto",
            "rowHeight": 0.8,
            "legend": {"showLegend": False},
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
