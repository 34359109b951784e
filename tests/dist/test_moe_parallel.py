"""Experts over two real gloo processes, against one process with all tokens."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

from models.moe.layer import MoE, canonical_names
from models.reducer import Reducer
from models.spec import MoESpec
from tests.dist.processes import ProcessesFailed, run_processes
from tests.unit.layouts import run_moe

WIDTH = 12
HIDDEN = 20
EXPERTS = 4
TOKENS = 30
CASES = ("plain", "skewed", "half absent", "absent")
# ep_size, implementation
ONE = (1, "deepspeed")
TWO = (2, "deepspeed")
GROUPED = (1, "grouped")
# capacity factor, path
SETTINGS = ((0.0, *TWO), (1.0, *TWO), (0.0, *ONE), (0.0, *GROUPED), (1.0, *GROUPED))


class GlooReducer(Reducer):
    """The global batch of the test's processes."""

    def __init__(self):
        self.world_size = dist.get_world_size()

    def sum(self, x):
        """Sum over ranks, no gradient."""
        x = x.detach().clone()
        dist.all_reduce(x)
        return x

    def sum_with_grad(self, x):
        """Sum over ranks; torch's own version sums the gradients too."""
        return all_reduce(x)


def parameters(seed=0):
    """All weights of the layer with 4 experts, by canonical name."""
    generator = torch.Generator().manual_seed(seed)
    model = MoE(WIDTH, HIDDEN, MoESpec(experts=EXPERTS))
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5
        for name, p in sorted(model.named_parameters())
    }


def build(factor, ep_size, implementation, reducer):
    """The layer of this rank with its own experts of the common weights."""
    spec = MoESpec(experts=EXPERTS, capacity_factor=factor, implementation=implementation)
    moe = MoE(WIDTH, HIDDEN, spec, ep_size=ep_size, reducer=reducer).double()
    weights = parameters()
    names = canonical_names(moe)
    for name, p in moe.named_parameters():
        p.data = weights[names[name]].clone()
    return moe


def batch(case, rank):
    """Tokens, mask and target of one rank."""
    generator = torch.Generator().manual_seed(100 + rank)
    x = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    mask = torch.rand(TOKENS, generator=generator) < 0.8
    if case == "skewed" and rank == 1:
        x = x[:1].repeat(TOKENS, 1)  # all to one expert, so the loads of the ranks differ
    if case == "absent" or (case == "half absent" and rank == 1):
        mask = torch.zeros(TOKENS, dtype=torch.bool)
    return x, mask, torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64)


def worker(settings):
    """All settings in one pair of processes."""
    import deepspeed

    deepspeed.init_distributed("gloo", verbose=False)
    return [one_setting(*setting) for setting in settings]


def one_setting(factor, ep_size, implementation):
    """Every case on this rank: outputs, loss, and gradients averaged over the ranks."""
    rank = dist.get_rank()
    world = dist.get_world_size()
    moe = build(factor, ep_size, implementation, GlooReducer())
    moe.layer.set_deepspeed_parallelism()
    assert dist.get_rank(moe.layer.deepspeed_moe.ep_group) == moe.ep_rank
    names = canonical_names(moe)
    results = {}
    for case in CASES:
        x, mask, target = batch(case, rank)
        moe.zero_grad()
        moe.train()
        y, routing = run_moe(moe, x, mask)
        ((y * target).sum() + 3 * routing.balance).backward()
        grads = {}
        for name, p in moe.named_parameters():
            # An expert on one rank has had every rank's tokens already. All others are summed.
            if ep_size == 1 or getattr(p, "allreduce", True):
                dist.all_reduce(p.grad)
            grads[names[name]] = p.grad / world
        teacher = run_moe(moe.eval(), x, mask)[0].detach()
        results[case] = {
            "y": y.detach(),
            "balance": routing.balance.detach(),
            "grads": grads,
            "teacher": teacher,
            "dropped": routing.dropped.sum(),
        }
    return results


def alone(case, factor):
    """The same in one process.

    Capacity counts the tokens of a rank, so each rank's output is computed alone. The balance is
    that of all tokens.
    """
    moe = build(factor, None, "deepspeed", None)
    batches = [batch(case, rank) for rank in range(2)]
    outputs = [run_moe(moe, x, mask)[0] for x, mask, _ in batches]
    x, mask = (torch.cat([b[i] for b in batches]) for i in range(2))
    balance = run_moe(moe, x, mask)[1].balance
    (sum((y * b[2]).sum() for y, b in zip(outputs, batches)) / 2 + 3 * balance).backward()
    grads = {name: p.grad for name, p in moe.named_parameters()}
    teacher = [y.detach() for y in run_moe(moe.eval(), x, mask)[0].split(TOKENS)]
    return [y.detach() for y in outputs], balance.detach(), grads, teacher


@pytest.fixture(scope="module")
def two_ranks():
    """Results by setting, then by rank."""
    by_rank = run_processes(2, "tests.dist.test_moe_parallel:worker", [SETTINGS])
    return dict(zip(SETTINGS, zip(*by_rank)))


@pytest.mark.parametrize("setting", SETTINGS)
def test_two_ranks_equal_one(two_ranks, setting):
    results = two_ranks[setting]
    factor = setting[0]
    for case in CASES:
        outputs, balance, grads, teacher = alone(case, factor)
        seen = {}
        for rank, result_of_cases in enumerate(results):
            result = result_of_cases[case]
            torch.testing.assert_close(result["y"], outputs[rank])
            torch.testing.assert_close(result["teacher"], teacher[rank])
            torch.testing.assert_close(result["balance"], balance)
            seen |= result["grads"]
            for name, gradient in result["grads"].items():
                place = f"{case} {name}"
                torch.testing.assert_close(
                    gradient, grads[name], msg=lambda m, p=place: f"{p}: {m}"
                )
        assert seen.keys() == grads.keys()
    dropped = sum(int(r["skewed"]["dropped"]) for r in results)
    assert (dropped > 0) == (factor > 0)


class Stack(nn.Module):
    """A dense layer and a MoE layer, the smallest model with both kinds of gradient."""

    def __init__(self, ep_size, implementation, reducer):
        super().__init__()
        self.dense = nn.Linear(WIDTH, WIDTH)
        spec = MoESpec(experts=EXPERTS, capacity_factor=0.0, implementation=implementation)
        self.moe = MoE(WIDTH, HIDDEN, spec, ep_size=ep_size, reducer=reducer)
        weights = parameters()
        names = canonical_names(self.moe)
        for name, p in self.moe.named_parameters():
            p.data = weights[names[name]].float()
        torch.manual_seed(0)
        nn.init.orthogonal_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x, mask, target):
        """Loss of one rank."""
        y, routing = run_moe(self.moe, self.dense(x), mask)
        return (y * target).sum() / len(x) + 3 * routing.balance


def share(world, rank):
    """This rank's part of one global batch of four."""
    parts = [batch("skewed", part) for part in range(4)[rank::world]]
    x, mask, target = (torch.cat(part) for part in zip(*parts))
    return x.float(), mask, target.float()


def train(paths, clip, steps):
    """One ZeRO-2 run for each ep_size and implementation, all in the same processes."""
    import deepspeed

    deepspeed.init_distributed("gloo", verbose=False)
    return [one_run(*path, clip, steps) for path in paths]


def one_run(ep_size, implementation, clip, steps):
    """Gradient norms and final weights, by canonical name, of a ZeRO-2 run with DeepSpeed."""
    import deepspeed
    from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer

    model = Stack(ep_size, implementation, GlooReducer())
    groups = split_params_into_different_moe_groups_for_optimizer(
        {"params": list(model.parameters()), "name": "all"}
    )
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": 2, "reduce_scatter": True, "contiguous_gradients": True},
    }
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    norms = []
    for _ in range(steps):
        engine.backward(engine(*share(dist.get_world_size(), dist.get_rank())))
        engine.step()
        norms.append(float(engine.get_global_grad_norm()))
    names = canonical_names(model)
    return norms, {names[name]: p.detach().clone() for name, p in model.named_parameters()}


def train_plain(clip, steps):
    """The same run with torch alone."""
    model = Stack(None, "deepspeed", Reducer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    norms = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(*share(1, 0)).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip)))
        optimizer.step()
    return norms, {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("world,paths", [(2, (ONE, TWO, GROUPED)), (4, (TWO,))])
def test_zero2_training_does_not_depend_on_the_split(world, paths):
    norms, weights = train_plain(0.5, 4)
    assert min(norms) > 0.5  # every step is clipped
    by_rank = run_processes(world, "tests.dist.test_moe_parallel:train", [paths, 0.5, 4])
    for runs in zip(*by_rank):
        merged = {}
        for found, part in runs:
            torch.testing.assert_close(found, norms, rtol=1e-5, atol=0)
            merged |= part
        assert merged.keys() == weights.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(merged[name], weight, rtol=1e-5, atol=1e-6)


def test_a_failing_process_is_named_and_the_others_are_killed(tmp_path):
    script = tmp_path / "half.py"
    script.write_text(f"""
import os, pathlib, sys, time
if os.environ["RANK"] == "1":
    while not pathlib.Path({str(tmp_path / "pid")!r}).exists():
        time.sleep(0.01)
    sys.exit("rank 1 broke " + sys.argv[1])
pathlib.Path({str(tmp_path / "part")!r}).write_text(str(os.getpid()))
os.rename({str(tmp_path / "part")!r}, {str(tmp_path / "pid")!r})
time.sleep(1000)
""")
    with pytest.raises(ProcessesFailed, match="process 1 of 2 ended with 1\nrank 1 broke here"):
        run_processes(2, str(script), ["here"])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_hanging_process_runs_out_of_time(tmp_path):
    script = tmp_path / "hang.py"
    script.write_text(
        "import os, sys, time\nprint('waiting', file=sys.stderr)\n"
        "time.sleep(60 if os.environ['RANK'] == '0' else 0)\n"
    )
    with pytest.raises(
        ProcessesFailed, match=r"processes \[0\] of 2 ran out of time; process 0 said\nwaiting"
    ):
        run_processes(2, str(script), timeout=5)


def test_scripts_return_their_output_by_rank(tmp_path):
    script = tmp_path / "say.py"
    script.write_text(
        "import os, sys\nprint(os.environ['RANK'], os.environ['WORLD_SIZE'], *sys.argv[1:])\n"
    )
    assert run_processes(2, str(script), ["a", 1]) == ["0 2 a 1\n", "1 2 a 1\n"]
