"""The line on ranks that differ."""

from engine.distributed.agreement import RankFacts, disagreement

ADVICE = "; start all ranks with the same command, files and code"


def line(*ranks: dict, hosts: str = "aabb") -> str:
    """The message for ranks with these facts, two on each of the nodes a and b."""
    return disagreement([RankFacts(host, facts) for host, facts in zip(hosts, ranks, strict=True)])


def test_ranks_with_one_value_are_named_together():
    lr = "optimizer.params.lr"
    found = line({lr: 1.0}, {lr: 2.0}, {lr: 2.0}, {lr: 3.0})
    assert found == (
        f"{lr}: expected 1.0 on every rank, as on rank 0 (a), "
        f"found 2.0 on ranks 1-2 (a, b), 3.0 on rank 3 (b){ADVICE}"
    )


def test_a_fact_that_one_side_does_not_have():
    found = line({"x": None}, {"x": None}, {"x": None, "code y.py": "12"}, {"x": None})
    assert found == (
        "code y.py: expected nothing on every rank, as on rank 0 (a), "
        f'found "12" on rank 2 (b){ADVICE}'
    )


def test_further_facts_are_counted_and_some_are_named():
    same = dict.fromkeys("abcdef", 1)
    found = line(same, same, same, dict.fromkeys("abcdef", 2))
    assert found == (
        "a: expected 1 on every rank, as on rank 0 (a), found 2 on rank 3 (b); "
        f"5 more differ: b, c, d, ...{ADVICE}"
    )
