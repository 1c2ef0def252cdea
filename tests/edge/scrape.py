"""Reads a Prometheus page on stdin with the reference parser, checks it as `promtool check metrics` would, prints it as JSON."""

import json
import re
import sys

from prometheus_client.parser import text_string_to_metric_families

UNITS = {"milliseconds", "ms", "minutes", "hours", "kilobytes", "kb", "mb", "percent", "us"}
ID = re.compile(r"(inv|exe|dlv|trg|lse|tok)_[0-9a-z]{20}|sha256:|[0-9a-f]{16}")


def problems(family):
    name, kind = family.name, family.type
    samples = family.samples
    if not family.documentation:
        yield "has no help text"
    if kind in ("unknown", "untyped"):
        yield "has no type"
    if kind != "counter" and name.endswith("_total"):
        yield "is no counter and ends with _total"
    if kind == "counter" and any(not sample.name.endswith("_total") for sample in samples):
        yield "is a counter and does not end with _total"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        yield "is not snake case"
    if set(name.split("_")) & UNITS:
        yield "is not in a base unit"
    if kind != "histogram" and name.endswith(("_count", "_sum", "_bucket")):
        yield "ends like a part of a histogram"
    series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    if len(series) != len(set(series)):
        yield "has a series twice"
    for sample in samples:
        if any(ID.search(value) for value in sample.labels.values()):
            yield f"has an id in a label: {sample.labels}"
    if kind == "histogram":
        yield from buckets(samples)


def buckets(samples):
    groups = {}
    for sample in samples:
        labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
        groups.setdefault(labels, []).append(sample)
    for labels, group in groups.items():
        levels = [sample.value for sample in group if sample.name.endswith("_bucket")]
        total = [sample.value for sample in group if sample.name.endswith("_count")]
        if levels != sorted(levels) or levels[-1:] != total:
            yield f"has buckets that do not add up: {labels}"


def main():
    families = list(text_string_to_metric_families(sys.stdin.read()))
    wrong = [f"{family.name} {what}" for family in families for what in problems(family)]
    names = [family.name for family in families]
    wrong += [f"{name} comes twice" for name in set(names) if names.count(name) > 1]
    samples = [[sample.name, sample.labels, sample.value] for family in families for sample in family.samples]
    print(json.dumps({"problems": wrong, "samples": samples}))


main()
