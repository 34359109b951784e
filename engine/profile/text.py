"""The measured step as text for a terminal."""

from engine.profile.figure import place, short

ROWS = 15  # of the table of operators
GIGA = 1e9
TERA = 1e12
GIB = 2**30


def text(record: dict) -> str:
    """The report as lines; ``record`` as the command writes it."""
    lines = [
        f"Measured training step: {record['configuration']}",
        "",
        *_summary(record),
        "",
        *_parts(record["traced_step"]),
        "",
        *_operators(record),
    ]
    return "\n".join(lines)


def _summary(record: dict) -> list[str]:
    """What ran, whether it trained, how fast."""
    hardware = record["hardware"]
    environment = record["environment"]
    packages = environment["packages"]
    counts = record["counts"]
    step = record["step_seconds"]
    wait = record["data_wait"]
    rows = {
        "hardware": f"{place(hardware)}, {hardware['type']}, "
        f"CPU threads a rank: {hardware['threads']}",
        "software": f"torch {packages['torch']}, deepspeed {packages['deepspeed']}, "
        f"revision {environment['git']}",
        "model": f"{counts['parameters'] / 1e6:.1f} M parameters, batch {counts['batch']}",
        "training": _training(record["training"]),
        "timed": f"{counts['timed']} steps without the profiler, "
        f"after {counts['warmup']} of warm-up",
        "step time": f"{short(step['median'])} median, {short(step['min'])} to "
        f"{short(step['max'])}; a step's slowest rank",
        "speed": f"{record['samples_per_second']:.3g} samples/s",
        "data wait": f"{short(wait['seconds'])} a step, {100 * wait['share']:.1f} %, "
        "until every rank has its batch",
        "peak memory": f"{_memory(record['memory'])}; the largest rank, from its start",
        **_flops(record["flops"], hardware["type"]),
    }
    return [f"{name:14}{value}" for name, value in rows.items()]


def _training(training: dict) -> str:
    """Whether all steps were applied, and how the loss went."""
    verdict = "all terms finite" if training["finite"] else "NOT ALL TERMS FINITE"
    return (
        f"{training['applied']} of {training['steps']} steps applied, "
        f"loss {_loss(training['first_loss'])} -> {_loss(training['last_loss'])}, {verdict}"
    )


def _loss(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4f}"


def _memory(peaks: dict[str, int]) -> str:
    return ", ".join(f"{size / GIB:.2f} GiB {name}" for name, size in peaks.items())


def _flops(flops: dict, dtype: str) -> dict[str, str]:
    """What the model needs, and what the step reached of what the device can."""
    side = flops["matmul"]["side"]
    return {
        "model FLOPs": f"{flops['sample_model'] / GIGA:,.1f} GFLOPs a sample, "
        f"{flops['step_model'] / TERA:,.3g} TFLOPs a step",
        "reached": f"{flops['per_second'] / TERA:.4g} TFLOP/s, {100 * flops['mfu']:.1f} % (MFU) of "
        f"{flops['matmul']['per_second'] / TERA:.4g} TFLOP/s,",
        "": f"a {dtype} matrix product {side} x {side} x {side} on all ranks at once",
    }


def _parts(traced: dict) -> list[str]:
    """One step by part, from the trace."""
    whole = traced["seconds"]
    exchange = traced["communication"]
    basis = "inside the parts, waiting for other ranks included"
    if exchange["exposed"] is not None:
        basis += f"; {short(exchange['exposed'])} with no other kernel running"
    lines = [
        f"One more step with the profiler on, which makes it longer: {short(whole)}, "
        "mean over ranks",
        "",
        f"{'part':24}{'time':>10}{'share':>8}",
    ]
    for name, seconds in traced["parts"].items():
        lines.append(f"{name:24}{short(seconds):>10}{100 * seconds / whole:>7.1f}%")
    share = 100 * exchange["share"]
    lines.append("")
    lines.append(f"{'communication':24}{short(exchange['seconds']):>10}{share:>7.1f}%  {basis}")
    if traced["busy_share"] is not None:
        lines.append(f"{'a kernel runs':24}{'':10}{100 * traced['busy_share']:>7.1f}%")
    return lines


def _operators(record: dict) -> list[str]:
    """The largest operators of the same step."""
    what = "Operators by their own CPU time"
    if record["hardware"]["kind"] == "cuda":
        what = "Kernels by device time"
    lines = [f"{what}, rank 0, same step", "", f"{'calls':>8}{'time':>10}{'share':>8}  name"]
    for row in record["operators"][:ROWS]:
        share = 100 * row["share"]
        lines.append(
            f"{row['calls']:>8}{short(row['seconds']):>10}{share:>7.1f}%  {row['name'][:80]}"
        )
    return lines
