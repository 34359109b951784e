import torch.distributed as dist
def engine_and_shutdown():
    from engine import zero
    from tests.dist.small import start, train_step
    zero.init_distributed()
    train_step(start(2),0)
    zero.shutdown()
def engine_no_shutdown():
    from engine import zero
    from tests.dist.small import start, train_step
    zero.init_distributed()
    train_step(start(2),0)
def plain_shutdown():
    dist.init_process_group("gloo")
    gs=[dist.new_group([0,1]),dist.new_group([2,3])]
    import torch
    dist.all_reduce(torch.ones(3))
    dist.destroy_process_group()
