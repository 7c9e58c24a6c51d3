"""`show`: one version explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import (
    AsJson,
    ModelName,
    figure,
    opened,
    plain,
    show_json,
    show_table,
    when,
)
from everlearn.cli.transfer import told as told_transfer

REASONS = 3
"""Examples of rows that were set aside."""

SHOWN = 5
"""Rows that flipped, of those that were lost and of those that were won; --json has more."""

CLASSES = 8
"""Classes up to which the share of each is shown, source by source."""

FATES = ("learned", "held_out", "set_aside", "duplicates")


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(show)


def show(
    context: typer.Context,
    model: ModelName,
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the version.")],
    as_json: AsJson = False,
) -> None:
    """Explain a version: what it learned and from whom, what changed in its answers since its
    parent, and why it was let through.

    Both versions are asked about the rows held out; rows of its increments are read again, as far
    as a bound. Slices are named only where their flips are more than chance gives, among all slices
    that were looked at.
    """
    with opened(context) as workspace:
        found = plain(workspace.model(model).show(number))
    if as_json:
        show_json(found)
        return
    _show_made(found)
    _show_learned(found)
    _show_changes(found)
    _show_admission(found["admission"])


def _title(text: str) -> None:
    typer.echo(f"\n{text}")


# --- what it is -----------------------------------------------------------------------------------


def _show_made(found: Json) -> None:
    aliases = f" ({', '.join(found['aliases'])})" if found["aliases"] else ""
    typer.echo(f"version {found['number']} of {found['model']}{aliases}")
    job, parent = found["made"]["job"], found["parent"]
    by = f"job {job['id']}" if job else found["made"]["by"]
    took = f" in {job['seconds']:,.1f} s" if job and job["seconds"] is not None else ""
    typer.echo(f"made {when(found['created_at'])} by {by}{took}")
    goes_on = "from nothing: it takes over no version" if parent is None else f"version {parent}"
    typer.echo(f"goes on from {goes_on}" if parent else f"begins {goes_on}")
    defined = found["definition"]
    said = f": {defined['said']}" if defined["said"] else ""
    typer.echo(f"definition {defined['number']}{said}")
    for one in defined["changes"]:
        change = f"{_short(one['before'])} → {_short(one['after'])}"
        typer.echo(f"  changed since version {found['against']}: {one['name']} {change}")
    if found["dropped_at"]:
        typer.echo(f"its state was removed {when(found['dropped_at'])}")
    for line in _repaired(found["repair"]):
        typer.echo(line)


def _short(value: Json, most: int = 60) -> str:
    """A setting, cut where it is long."""
    text = "–" if value is None else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _repaired(repair: Json) -> list[str]:
    lines = []
    if repair["patched"]:
        edits = "" if repair["edits"] is None else f": {len(repair['edits'])} edits"
        lines.append(f"patched{edits}")
    for one in repair["without"]:
        lines.append(f"folded again without {one['rows']:,} withdrawn rows: {one['reason']}")
    for one in repair["after"]:
        lines.append(f"it learned rows that were withdrawn since: {one['reason']}")
    return lines


# --- what it learned ------------------------------------------------------------------------------


def _show_learned(found: Json) -> None:
    _title("What it learned")
    columns = ("source", "from row#", "to#", "learned#", "held out#", "set aside#", "duplicates#")
    names = ("start", "stop", "rows", "held_out", "set_aside", "duplicates")
    rows = [[one["source"], *(figure(one[n]) for n in names)] for one in found["increments"]]
    show_table(columns, rows, "nothing beyond its parent")
    for one in found["increments"]:
        for line in _reasons(one):
            typer.echo(line)
    learned = found["learned"]
    if "why_not" in learned:
        typer.echo(f"from whom is not known: {learned['why_not']}")
        return
    _show_rows(learned)
    for line in told_transfer(found["transfer"]) if found["transfer"] else []:
        typer.echo(line)


def _reasons(increment: Json) -> list[str]:
    """Why rows were set aside, with examples."""
    reasons = increment["reasons"] or {}
    lines = [f"{n:,} set aside: {why}" for why, n in (reasons.get("set_aside") or {}).items()]
    some = (reasons.get("examples") or [])[:REASONS]
    return lines + [f"  row {one['row']:,}: {one['reason']}" for one in some]


def _show_rows(learned: Json) -> None:
    if learned["read"] < learned["rows"]:
        typer.echo(f"of the first {learned['read']:,} of {learned['rows']:,} rows:")
    sources = learned["sources"]
    if sources:
        reviewed = any(one["reviewer"] for one in sources)
        classes = [one["value"] for one in learned["classes"]]
        classes = classes if len(classes) <= CLASSES else []
        columns = ["from", *(["reviewer"] if reviewed else []), "labels"]
        counted = [f"{fate.replace('_', ' ')}#" for fate in FATES]
        shares = [f"{value}#" for value in classes]
        rows = [_source_row(one, classes, reviewed) for one in sources]
        show_table([*columns, *counted, *shares], rows, "")
    if len(learned["classes"]) > CLASSES:
        said = (f"{one['value']} {one['learned']:,}" for one in learned["classes"])
        typer.echo(f"learned by class: {', '.join(said)}")
    times = learned["times"]
    if times:
        typer.echo(f"event times {when(times[0]['start'])} to {when(times[-1]['stop'])}")
    if learned["values"]:
        said = (f"{name.replace('_', ' ')} {figure(v)}" for name, v in learned["values"].items())
        typer.echo(f"targets learned: {', '.join(said)}")
    for why in learned["missing"]:
        typer.echo(f"could not be read again: {why}")


def _source_row(one: Json, classes: Sequence[Json], reviewed: bool) -> list[str]:
    of = {item["value"]: item["rows"] for item in one["classes"]}
    named = [one["source"], *([one["reviewer"] or ""] if reviewed else []), one["kind"] or "file"]
    shares = (f"{of.get(value, 0) / (one['learned'] or 1):.0%}" for value in classes)
    return [*named, *(figure(one[fate]) for fate in FATES), *shares]


# --- what changed ---------------------------------------------------------------------------------


def _show_changes(found: Json) -> None:
    changed = found["predictions"]
    if "why_not" in changed:
        _title("What changed in its answers")
        typer.echo(changed["why_not"])
        return
    _title(f"What changed in its answers since version {changed['against']}")
    n = changed["rows"] or 1
    says = (
        f"of {changed['rows']:,} rows held out, {changed['changed']:,}"
        f" ({changed['changed'] / n:.1%}) are answered otherwise"
    )
    lost, won = "right before and wrong now", "wrong before and right now"
    if changed["tolerance"] is not None:
        says += f", by more than {figure(changed['tolerance'])}"
        lost, won = "worse by more than that", "better by more than that"
    typer.echo(f"{says}; {changed['lost']:,} {lost}, {changed['won']:,} {won}")
    counts = ("rows", "changed", "lost", "won")
    columns = [f"{name}#" for name in counts]
    rows = [[_period(one), *(figure(one[name]) for name in counts)] for one in changed["periods"]]
    show_table(["increments", *columns], rows, "")
    classes = [[str(one["name"]), *(figure(one[c]) for c in counts)] for one in changed["classes"]]
    if classes:
        show_table(["class", *columns], classes, "")
    _show_slices(changed)
    _show_samples(changed["samples"])


def _period(one: Json) -> str:
    first, last = one["first"], one["last"]
    name = f"{first}" if first == last else f"{first}–{last}"
    days = (one["start"] or "")[:10], (one["stop"] or "")[:10]
    return f"{name}  {' to '.join(days)}" if all(days) else name


def _show_slices(changed: Json) -> None:
    if not changed["slices"]:
        typer.echo(f"no slice of {changed['tested']} has more flips than chance gives")
        return
    rows = [
        [
            one["slice"],
            one["kind"],
            figure(one["rows"]),
            figure(one["flips"]),
            f"{one['share']:.1%}",
            f"{one['low']:.1%}–{one['high']:.1%}",
            f"{one['rest']:.1%}",
            f"{one['p']:.1g}" if one["p"] > 1e-99 else "<1e-99",
        ]
        for one in changed["slices"]
    ]
    columns = ("slice", "flips", "rows#", "flipped#", "share#", "95 %#", "elsewhere#", "p#")
    show_table(columns, rows, "")
    typer.echo(
        f"slices with more flips than chance gives; p is corrected for {changed['tested']} slices"
    )


def _show_samples(samples: Sequence[Json]) -> None:
    rows = []
    shown = [one for kind in ("lost", "won") for one in _some(samples, kind)]
    for one in shown:
        features = ", ".join(f"{name} {_value(v)}" for name, v in one["features"].items())
        answers = [_said(one[name]) for name in ("truth", "before", "after")]
        came = one["from"] or {}
        who = came.get("reviewer") or came.get("source") or ""
        rows.append([one["kind"], *answers, who, _short(features, 110)])
    if rows:
        columns = ("flip", "truth", "before", "after", "from", "asked with")
        show_table(columns, rows, "")


def _some(samples: Sequence[Json], kind: str) -> list[Json]:
    return [one for one in samples if one["kind"] == kind][:SHOWN]


def _value(value: Json) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _short(value, 24)


def _said(value: Json) -> str:
    return figure(value) if isinstance(value, float) else str(value)


# --- why it was let through -----------------------------------------------------------------------


def _show_admission(found: Json) -> None:
    _title("Why it was let through, or not")
    for one in found["triggers"]:
        typer.echo(f"{when(one['at'])}: {one['name']} asked for its job: {one['reason']}")
    gate = found["gate"]
    typer.echo(f"gate: {gate['action']}: {gate['reason']}")
    checks = gate["evidence"].get("checks") or ()
    for one in checks if len(checks) > 1 else ():
        typer.echo(f"  {'pass' if one.get('passed') else 'refuse'}: {one.get('reason', '')}")
    for one in found["rollouts"]:
        typer.echo(f"rollout {one['rollout']} against version {one['champion']}: {one['state']}")
        for said in one["decisions"]:
            stage = f"stage {said['stage'] + 1}, {said['action']}"
            typer.echo(f"  {when(said['at'])}: {stage}: {said['reason']}")
    for one in found["moves"]:
        places = f"{figure(one['version_from'])} → {figure(one['version_to'])}"
        typer.echo(f"{when(one['at'])}: {one['name']} {places} ({one['action']}): {one['reason']}")
    told = {one["reason"] for one in found["moves"]}
    for one in found["audit"]:
        where = f", {one['where']}" if one["where"] else ""
        reason = f": {one['reason']}" if one["reason"] and one["reason"] not in told else ""
        typer.echo(f"{when(one['at'])}: {one['action']} by {one['who']}{where}{reason}")
