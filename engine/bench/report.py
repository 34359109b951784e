"""The result of a comparison as a table."""

from engine.profile.figure import short


def table(comparison: dict) -> str:
    """One case, as ``compare`` returns it."""
    checks = comparison["checks"]
    base = next(iter(checks))
    lines = [
        f"\n{comparison['case']}: {comparison['size']}",
        f"  {'':26}{'':20}{'median (smallest to largest)':>34}{'times ' + base:>26}{'of copy':>9}"
        f"{'of products':>13}{'extra MB':>10}",
    ]
    for name, check in checks.items():
        title = name
        for row in comparison["rows"]:
            if row["way"] == name:
                lines.append(_line(title, row, base))
                title = ""  # the name stands in the first of its lines
        if title:
            lines.append(f"  {name:26}{_verdict(check, comparison['tolerance'])}")
    for name, reason in comparison["left_out"].items():
        lines.append(f"  {name:26}not measured: {reason}")
    lines.append(_accuracy(comparison))
    for goal in comparison["goals"]:
        lines.append(f"  goal, {goal['goal']}: {_reached(goal)}")
    return "\n".join(lines)


def _accuracy(comparison: dict) -> str:
    """How far the values are off."""
    errors = []
    size = 0
    for name, check in comparison["checks"].items():
        if check["state"] == "right":
            errors.append(f"{name} {max(check['errors']):.0e}")
            size = max(size, check["result_bytes"])
    return (
        f"  values and gradients, {size / 1e6:.1f} MB, are off by at most, "
        f"{comparison['tolerance']:.0e} allowed: {', '.join(errors)}"
    )


def _line(title: str, row: dict, base: str) -> str:
    """One part of a candidate."""
    time = f"{short(row['median'])} ({short(row['min'])} to {short(row['max'])})"
    ratio = row["faster"].get(base)
    faster = ""
    if ratio:
        faster = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
    extra = ""
    if row["extra_bytes"] is not None:
        extra = f"{row['extra_bytes'] / 1e6:.1f}"
    return (
        f"  {title:26}{row['part']:20}{time:>34}{faster:>26}{_percent(row['copy_share']):>9}"
        f"{_percent(row['product_share']):>13}{extra:>10}"
    )


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.1f} %"


def _verdict(check: dict, tolerance: float) -> str:
    """Why a candidate was not timed."""
    if check["state"] == "failed":
        return f"FAILED: {check['reason']}"
    if check["state"] != "wrong":
        return f"{check['state']}: {check['reason']}"
    errors = []
    for error in check["errors"]:
        if error is None:
            errors.append("not finite")
        else:
            errors.append(f"{error:.1e}")
    return (
        f"FAILED: values and gradients are off by {', '.join(errors)}; "
        f"expected at most {tolerance:.0e}"
    )


def _reached(goal: dict) -> str:
    """What was reached of a goal."""
    if goal["met"] is None:
        return "not measured"
    figure = f"{100 * goal['found']:.1f} %"
    if goal["kind"] == "speed":
        figure = f"{goal['found']:.2f} x"
    if goal["met"]:
        return f"{figure}, met"
    return f"{figure}, not met"
