"""PyTorch's compiler is imported where something compiles, and does then what it does everywhere."""

from tests import commands

STEP = """
import sys, torch
from lottalora.tasks import dynamo
from lottalora.tasks.imports import before_lightning
before_lightning()
import pytorch_lightning
from torch._dynamo import OptimizedModule
net = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(net.parameters())
def step(net):
    optimizer.zero_grad()
    net(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
step(net)
stand_in = sys.modules["torch._dynamo"]
untraced = dynamo.disable(lambda net: 2 * net(torch.ones(3, 2)))
assert untraced(net).shape == (3, 1)
import inspect
assert inspect.getmodule(step) is sys.modules["__main__"]
assert not isinstance(net, OptimizedModule)
alone = {"store": torch.distributed.HashStore(), "rank": 0, "world_size": 1}
torch.distributed.init_process_group("gloo", **alone)
assert dynamo.is_postponed() and "torch._dynamo.eval_frame" not in sys.modules
"""
COMPILED = """
import torch._dynamo.config as config
assert not dynamo.is_postponed()
real = sys.modules["torch._dynamo"]
assert torch._dynamo is real and real.config is config is sys.modules["torch._dynamo.config"]
assert config.__spec__.origin.endswith("config.py")
assert real.OptimizedModule is not OptimizedModule
graphs = []
compiled = torch.compile(net, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
assert isinstance(compiled, OptimizedModule) and not isinstance(net, OptimizedModule)
from pytorch_lightning.utilities.compile import OptimizedModule as lightnings
assert isinstance(compiled, lightnings)
step(compiled)
assert len(graphs) == 1
stand_in.trace_rules.clear_lru_cache()
assert stand_in.trace_rules.lookup is real.trace_rules.lookup
try:
    torch.compile(lambda: untraced(net), backend="eager", fullgraph=True)()
except real.exc.Unsupported as error:
    assert "disable" in str(error)
else:
    raise AssertionError("a function without a graph was traced")
assert dynamo.Finder not in sys.meta_path
dynamo.postpone()
assert sys.modules["torch._dynamo"] is real
"""


def test_an_uncompiled_step_imports_no_compiler():
    ran = commands.run("-c", STEP)
    assert ran.returncode == 0, ran.stderr


def test_what_compiles_after_such_a_step_has_the_real_compiler():
    ran = commands.run("-c", STEP + COMPILED)
    assert ran.returncode == 0, ran.stderr
