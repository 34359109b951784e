"""Which nodes are to blame, from reports of ranks."""

from itertools import chain

import pytest

from engine.doctor.exchange import ALL, PAIRS, WITHIN, parts
from engine.doctor.node import DONE, RankReport, port_problems
from engine.doctor.nodes import judge

NODES = ["a", "b", "c", "d"]
SAME = {"version of torch": "2.11.0", "dataset": "f00"}
FIGURES = {
    "matrix product": 9e12,
    "all-reduce within a node": 4e11,
    "all-reduce between two nodes": 4e10,
    "all-reduce between two other nodes": 4e10,
    "all-reduce of all ranks": 3e10,
}


def reports(nodes=NODES) -> list[RankReport]:
    """Two ranks on each node, nothing wrong."""
    found = []
    for rank in range(2 * len(nodes)):
        node = nodes[rank // 2]
        report = RankReport(rank, node, DONE, dict(SAME), figures=dict(FIGURES), clock=1000.0)
        found.append(report)
    return found


def test_healthy_nodes():
    judgement = judge(reports(), NODES, 8)
    assert (judgement.exit_code, judgement.lines()) == (0, [])
    assert judgement.summary == (
        "preflight of 4 nodes, 8 ranks | matrix product 9000 G/s | all-reduce within a node "
        "400 G/s | all-reduce between two nodes 40 G/s | all-reduce of all ranks 30 G/s"
    )


def hurt(report: RankReport, how: str) -> None:
    """Let something be wrong with a rank's node."""
    if how == "problem":
        report.problems = ["shards: no such folder"]
    if how == "version":
        report.same["version of torch"] = "2.10.0"
    if how == "phase":
        report.phase = WITHIN
    if how == "clock":
        report.clock -= 60
    if how == "matrix":
        report.figures["matrix product"] = 4e12
    if how == "link":
        report.figures["all-reduce between two nodes"] = 1e9
        report.figures["all-reduce between two other nodes"] = 1e10


HURTS = {
    "problem": "c: shards: no such folder",
    "version": "c: version of torch: expected 2.11.0 as on 3 of 4 nodes, found 2.10.0",
    "phase": "c: got no further than 'within a node', for which others waited",
    "clock": "c: its clock is -60 s off",
    "matrix": "c: matrix product: expected about 9000 G/s, found 4000 G/s",
    "link": "c: all-reduce between two nodes: expected about 40 G/s, found 10 G/s",
}


@pytest.mark.parametrize("how", HURTS)
def test_a_bad_node_is_named_in_one_line(how):
    found = reports()
    for report in found[4:6]:  # both ranks of c
        hurt(report, how)
    judgement = judge(found, NODES, 8)
    assert judgement.exit_code == 1
    assert list(judgement.bad) == ["c"]
    assert judgement.lines() == [HURTS[how]]


def test_a_slow_neighbour_is_not_held_against_a_node():
    found = reports()
    for rank in (2, 3, 4, 5):  # b and c share a slow link in one of the two rounds
        found[rank].figures["all-reduce between two nodes"] = 1e9
    assert judge(found, NODES, 8).exit_code == 0


def test_a_node_without_reports():
    judgement = judge(reports()[:6], NODES, 8)
    assert judgement.exit_code == 1
    [line] = judgement.lines()
    assert line.startswith("d: expected reports of 2 ranks in the run folder, found 0")
    assert judge([], NODES, 8).exit_code == 2


def alone(report: RankReport, error: str = "") -> RankReport:
    """A rank that never met the others."""
    return RankReport(report.rank, report.host, same=report.same, not_joined=error)


def test_who_cannot_join_is_to_blame_unless_a_node_is_absent():
    lost = "DistNetworkError: the connection was closed"
    waiting = [alone(report) for report in reports()]
    waiting[2] = alone(waiting[2], lost)
    judgement = judge(waiting, NODES, 8)
    assert judgement.bad == {"b": [lost]}
    judgement = judge(waiting[:-2], NODES, 8)
    assert list(judgement.bad) == ["d"]


def test_what_is_wrong_everywhere_is_no_node_s_fault():
    found = reports()
    for report in found:
        hurt(report, "problem")
    judgement = judge(found, NODES, 8)
    assert (judgement.exit_code, judgement.lines()) == (2, ["shards: no such folder"])
    assert judgement.bad == {}


def test_without_a_majority_nobody_is_blamed():
    found = reports(["a", "b"])
    hurt(found[0], "version")
    hurt(found[1], "version")
    judgement = judge(found, ["a", "b"], 4)
    assert judgement.exit_code == 2
    assert judgement.lines() == [
        "version of torch: expected the same on all nodes, found 2.10.0 on a, 2.11.0 on b"
    ]


def test_each_rank_is_in_one_group_of_each_kind():
    hosts = [node for node in "abcde" for _ in range(2)]
    found = parts(hosts)
    for groups in found.values():
        assert sorted(chain.from_iterable(groups)) == list(range(10))
    assert found[WITHIN] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert found[PAIRS] == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]
    assert list(parts(["a", "a"])) == [WITHIN]
    assert list(parts(["a", "b"])) == [WITHIN, ALL]


def test_a_port_that_the_system_gives_to_anybody():
    assert port_problems(12345, "32768\t60999\n") == []
    [line] = port_problems(40000, "32768\t60999\n")
    assert line.startswith("MASTER_PORT: expected a port outside 32768-60999")
