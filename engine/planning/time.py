"""How long a step takes, by roofline: what an operator computes, what it moves, what is sent."""

from collections import defaultdict
from dataclasses import dataclass, replace

from engine.planning.cards import Card
from engine.planning.communication import LINK, Traffic
from engine.planning.recorder import Kind, Work

# Exchanges that run beside the computation of a part of the step: the gradients beside the
# backward pass, the teacher's weights beside the student's next forward pass.
BESIDE = {
    ("backward", "allreduce_"): "backward",
    ("backward", "reduce_"): "backward",
    ("teacher's average", "_allgather_base_"): "student",
}


@dataclass(frozen=True)
class Efficiency:
    """What is reached of a data sheet's rates. Assumed, until a step has been measured."""

    products: float = 0.55  # of the FLOPs of matrix products
    memory: float = 0.75  # of the memory's bandwidth
    links: float = 0.7  # of the bandwidth of links and network
    launch: float = 6e-6  # seconds of the host for an operator
    link_hop: float = 2e-6  # seconds until data from another card of the node is there
    network_hop: float = 8e-6  # the same from another node

    def slower(self, factor: float) -> "Efficiency":
        """The same for a step that takes ``factor`` times as long."""
        return replace(
            self,
            products=self.products / factor,
            memory=self.memory / factor,
            links=self.links / factor,
            launch=self.launch * factor,
            link_hop=self.link_hop * factor,
            network_hop=self.network_hop * factor,
        )


@dataclass
class PartTime:
    """The seconds of a part of a step."""

    products: float = 0.0
    memory: float = 0.0  # operators that move more than they compute
    host: float = 0.0  # to launch all operators
    exchange: float = 0.0  # of that, ``hidden`` runs beside the computation
    hidden: float = 0.0

    @property
    def computing(self) -> float:
        """Seconds of the card, or of the host where it is slower."""
        return max(self.products + self.memory, self.host)

    @property
    def total(self) -> float:
        """Seconds that the part takes."""
        return self.computing + self.exchange - self.hidden


def time_of(
    work: dict[Kind, Work], traffic: list[Traffic], card: Card, efficiency: Efficiency
) -> dict[str, PartTime]:
    """The parts of a step with their seconds.

    Args:
        work: Of a rehearsal.
        traffic: Of ``communication.traffic_of``.
        card: The GPU.
        efficiency: What is reached of its rates.
    """
    parts: dict[str, PartTime] = defaultdict(PartTime)
    for kind, done in work.items():
        part = parts[kind.part]
        rate = card.float32 if kind.is_float32 else card.bf16
        products = done.flops / (rate * efficiency.products)
        memory = done.size / (card.bandwidth * efficiency.memory)
        if products > memory:
            part.products += products
        else:
            part.memory += memory
        part.host += done.launches * efficiency.launch
    beside: dict[str, float] = defaultdict(float)  # by the part beside which it runs
    for exchange in traffic:
        rate = card.link if exchange.link == LINK else card.network
        seconds = exchange.sent / (rate * efficiency.links)
        seconds += exchange.link_hops * efficiency.link_hop
        seconds += exchange.network_hops * efficiency.network_hop
        parts[exchange.part].exchange += seconds
        host = BESIDE.get((exchange.part, exchange.collective))
        if host is not None:
            room = parts[host].computing - beside[host]
            hidden = max(0.0, min(seconds, room))
            beside[host] += hidden
            parts[exchange.part].hidden += hidden
    return dict(parts)
