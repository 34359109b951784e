import os, torch
import torch.distributed as dist
def go(how):
    torch._C._set_print_stack_traces_on_fatal_signal(True)
    from engine import zero
    from tests.dist.small import start, train_step
    zero.init_distributed()
    e=start(2)
    train_step(e,0)
    if how!="none": zero.shutdown()
