"""Which nodes a run should do without, from what their ranks have reported."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import median

from engine.doctor.exchange import ALL, OTHER_PAIRS, PAIRS, WITHIN
from engine.doctor.node import DONE, JOINED, LOOKED, RankReport

SLOW = 0.5  # of the median of all nodes: below it a node counts as slow
CLOCK = 5.0  # seconds that a clock may be off the median of all
_PHASES = (LOOKED, JOINED, WITHIN, PAIRS, OTHER_PAIRS, ALL, DONE)  # in their order
EXIT_BAD_NODES = 1
EXIT_WRONG = 2  # no node is to blame, or each


@dataclass
class Judgement:
    """What is wrong, node by node.

    Attributes:
        summary: one line on all nodes.
        bad: node -> lines, of those that the run should do without.
        wrong: lines that no node is to blame for, since all have them.
    """

    summary: str
    bad: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if the run can begin."""
        if self.wrong:
            return EXIT_WRONG
        if self.bad:
            return EXIT_BAD_NODES
        return 0

    def lines(self) -> list[str]:
        """A line for each bad node, or for what is wrong on all."""
        found = list(self.wrong)
        for node, reasons in self.bad.items():
            found.append(f"{node}: {'; '.join(reasons)}")
        return found


def judge(reports: Sequence[RankReport], nodes: Sequence[str], ranks: int) -> Judgement:
    """Find the nodes that are to blame.

    Args:
        reports: Of all ranks that have left one.
        nodes: Short names of all nodes of the job.
        ranks: Number of ranks of the job.
    """
    complaints: dict[str, dict[str, None]] = {node: {} for node in nodes}

    def complain(node: str, line: str) -> None:
        complaints.setdefault(node, {})[line] = None

    for node, line in _all_complaints(reports, nodes, ranks):
        complain(node, line)
    judgement = Judgement(_summary(reports, nodes))
    blamed = [node for node, lines in complaints.items() if lines]
    if len(blamed) == len(complaints):
        common = Counter(chain.from_iterable(complaints.values()))
        judgement.wrong = [line for line, _ in common.most_common(1)]
        return judgement
    for node in blamed:
        judgement.bad[node] = list(complaints[node])
    return judgement


def _all_complaints(
    reports: Sequence[RankReport], nodes: Sequence[str], ranks: int
) -> Iterable[tuple[str, str]]:
    """Node and line of everything that is wrong."""
    own = []
    for report in reports:
        for line in report.problems:
            own.append((report.host, line))
    own += _absent(reports, nodes, ranks)
    yield from own
    yield from _unlike(reports)
    if not own:  # else it is known for whom the others waited in vain
        yield from _apart(reports) or _behind(reports)
    yield from _off_time(reports)
    yield from _slow(reports)


def _absent(
    reports: Sequence[RankReport], nodes: Sequence[str], ranks: int
) -> Iterable[tuple[str, str]]:
    """Nodes of which ranks have left no report."""
    found = Counter(report.host for report in reports)
    share = ranks // len(nodes)
    for node in nodes:
        if found[node] < share:
            yield (
                node,
                f"expected reports of {share} ranks in the run folder, found {found[node]}: they "
                "did not start, or the node does not see the folder",
            )


def _unlike(reports: Sequence[RankReport]) -> Iterable[tuple[str, str]]:
    """Nodes on which something is not what most nodes have."""
    values: dict[str, dict[str, str]] = {}
    for report in reports:
        for name, value in report.same.items():
            values.setdefault(name, {})[report.host] = value
    for name, by_node in values.items():
        [(usual, count), *_] = Counter(by_node.values()).most_common()
        alike = f"as on {count} of {len(by_node)} nodes"
        for node, value in by_node.items():
            if value != usual and 2 * count > len(by_node):
                yield node, f"{name}: expected {usual} {alike}, found {value}"
            elif 2 * count <= len(by_node):
                yield node, f"{name}: expected the same on all nodes, found {_listed(by_node)}"


def _listed(by_node: dict[str, str]) -> str:
    """Each value with a node that has it."""
    holders: dict[str, str] = {}
    for node, value in by_node.items():
        holders.setdefault(value, node)
    return ", ".join(f"{value} on {node}" for value, node in holders.items())


def _apart(reports: Sequence[RankReport]) -> list[tuple[str, str]]:
    """Nodes whose ranks could not join the others."""
    return [(report.host, report.not_joined) for report in reports if report.not_joined]


def _behind(reports: Sequence[RankReport]) -> Iterable[tuple[str, str]]:
    """Nodes that have got less far than others, while those waited for them."""
    first = min((report.phase for report in reports), key=_PHASES.index, default=DONE)
    if first == DONE:
        return
    for report in reports:
        if report.phase == first:
            yield report.host, f"got no further than {first!r}, for which others waited"


def _off_time(reports: Sequence[RankReport]) -> Iterable[tuple[str, str]]:
    """Nodes whose clock is off."""
    clocks = [report.clock for report in reports if report.clock]
    if not clocks:
        return
    middle = median(clocks)
    for report in reports:
        if report.clock and abs(report.clock - middle) > CLOCK:
            yield report.host, f"its clock is {report.clock - middle:+.0f} s off"


def _slow(reports: Sequence[RankReport]) -> Iterable[tuple[str, str]]:
    """Nodes that are much slower than the median of all."""
    for name, by_node in figures_by_node(reports).items():
        if name.startswith(ALL):
            continue  # all ranks have the same
        usual = median(by_node.values())
        for node, value in by_node.items():
            if value < SLOW * usual:
                yield node, f"{name}: expected about {_shown(usual)}, found {_shown(value)}"


def figures_by_node(reports: Sequence[RankReport]) -> dict[str, dict[str, float]]:
    """Name of a figure -> node -> the lowest of its ranks.

    Of the two pairs that a node is in, the faster one counts: the other node may be the slow one.
    """
    found: dict[str, dict[str, float]] = {}
    for report in reports:
        for name, value in _merged(report.figures).items():
            by_node = found.setdefault(name, {})
            by_node[report.host] = min(value, by_node.get(report.host, value))
    return found


def _merged(figures: dict[str, float]) -> dict[str, float]:
    """The figures of a rank, with the better of its two pairs."""
    merged: dict[str, float] = {}
    for name, value in figures.items():
        name = name.replace(OTHER_PAIRS, PAIRS)
        merged[name] = max(value, merged.get(name, value))
    return merged


def _summary(reports: Sequence[RankReport], nodes: Sequence[str]) -> str:
    """Medians of all nodes."""
    parts = [f"preflight of {len(nodes)} nodes, {len(reports)} ranks"]
    for name, by_node in figures_by_node(reports).items():
        parts.append(f"{name} {_shown(median(by_node.values()))}")
    return " | ".join(parts)


def _shown(value: float) -> str:
    """A figure in units of 10**9."""
    return f"{value / 1e9:.4g} G/s"
