"""What a document in Chrome's trace-event format must be; from "Trace Event Format" (Google), the JSON object form.

check() raises ValueError at the first violation.
"""

from __future__ import annotations

import json
import re

#: What each kind of event must have beside name, ph, pid and tid.
NEEDS = {"X": {"ts", "dur"}, "i": {"ts"}, "C": {"ts", "args"}, "M": {"args"}}
MAY = {"name", "ph", "pid", "tid", "cat", "ts", "dur", "args", "s", "cname", "id", "tts", "tdur"}
METADATA = {"process_name": ("name", str), "thread_name": ("name", str), "thread_sort_index": ("sort_index", int),
            "process_sort_index": ("sort_index", int), "process_labels": ("labels", str)}
DOCUMENT = {"traceEvents", "displayTimeUnit", "otherData", "systemTraceEvents", "stackFrames", "samples"}


def must(condition, event, what):
    if not condition:
        raise ValueError(f"{what}: {event}")


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_natural(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_event(event):
    must(isinstance(event, dict), event, "an event is an object")
    must({"name", "ph", "pid", "tid"} <= set(event), event, "a key is missing")
    must(set(event) <= MAY, event, "a key that the format does not have")
    must(isinstance(event["name"], str) and event["name"], event, "no name")
    must(event["ph"] in NEEDS, event, "a phase type that pyalloc does not write")
    must(is_natural(event["pid"]) and is_natural(event["tid"]), event, "pid and tid are numbers")
    must(NEEDS[event["ph"]] <= set(event), event, "a key is missing for this phase type")
    must(isinstance(event.get("args", {}), dict), event, "args is an object")
    must("ts" not in event or (is_number(event["ts"]) and event["ts"] >= 0), event, "ts")
    must("dur" not in event or (is_number(event["dur"]) and event["dur"] >= 0), event, "dur")
    if event["ph"] == "i":
        must(event.get("s", "t") in ("g", "p", "t"), event, "scope of an instant")
    if event["ph"] == "C":
        must(event["args"] and all(map(is_number, event["args"].values())), event, "a counter's series are numbers")
    if event["ph"] == "M":
        must(event["name"] in METADATA, event, "unknown metadata")
        key, kind = METADATA[event["name"]]
        must(isinstance(event["args"].get(key), kind), event, "metadata without its argument")


def nanoseconds(microseconds):
    """Exact: the core writes three decimals."""
    return round(microseconds * 1000)


def check_nesting(events):
    """On each track, of two durations one holds the other or they are apart."""
    open_until = {}
    for event in (one for one in events if one["ph"] == "X"):
        begin = nanoseconds(event["ts"])
        end = begin + nanoseconds(event["dur"])
        stack = open_until.setdefault((event["pid"], event["tid"]), [])
        while stack and stack[-1] <= begin:
            stack.pop()
        must(not stack or end <= stack[-1], event, "overlaps another duration on its track")
        stack.append(end)


def check(text):
    """The document, when it is right."""
    document = json.loads(text)
    must(isinstance(document, dict) and isinstance(document.get("traceEvents"), list), "document", "no traceEvents")
    must(set(document) <= DOCUMENT, sorted(document), "a key that the format does not have")
    must(document.get("displayTimeUnit", "ms") in ("ms", "ns"), document.get("displayTimeUnit"), "displayTimeUnit")
    events = document["traceEvents"]
    for event in events:
        check_event(event)
    times = [event["ts"] for event in events if "ts" in event]
    must(times == sorted(times), "document", "times go back")  # not asked for by the format; ours are sorted
    check_nesting(events)
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    must({(event["pid"], event["tid"]) for event in events if "ts" in event} <= named, "document", "track without name")
    # json.loads reads decimals as floats: what was written has all of them.
    must(not re.search(r'"(?:ts|dur)":\d+(?!\d*\.\d{3}[,}])', text if isinstance(text, str) else text.decode()),
         "document", "times have three decimals")
    return document
