"""Each family under bf16, in which a GPU trains where a recipe says auto."""

import pytest
import torch
from hydra.utils import instantiate

from lottalora.build import build

FAMILIES = {
    "mlp": ("data=mnist",),
    "cfc": ("data=physionet2012", "model.size=0.125x"),
    "resnet": ("data=cifar10", "data.batch_size=8"),
    "gin": ("data=molhiv", "adapter.dropout=0", "model.net.dropout=0"),
    "gcn": ("data=arxiv", "model.net.dropout=0"),
    "vit_random": ("data=flowers102", "model.size=tiny", "data.image_size=32", "data.batch_size=4"),
    "distilbert": ("data=imdb",),
    "decision_transformer": ("data=halfcheetah",),
    "gpt": ("data=wikitext2", "data.batch_size=2", "alpha=2"),  # 16 on a random B saturates its softmax
}


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_in_bf16_has_nearly_the_loss_and_gradient_of_float32(composed, family, mode):
    words = (f"model={family}", *FAMILIES[family], f"mode={mode}", "data.sample=true")
    cfg = composed(*words, *(("rank=2", "adapter.B_init=kaiming") if mode == "scaffold" else ()))
    data = instantiate(cfg.data)
    batch = next(iter(data.read().train_batches(0)))
    torch.manual_seed(0)
    net, _ = build(cfg, data.spec)
    task = instantiate(cfg.task, net, data.spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    task.eval()  # without dropout both see the same net

    def loss_and_gradient(narrow: bool) -> tuple[torch.Tensor, torch.Tensor]:
        task.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            loss = task.step(batch).loss
        loss.backward()
        gradients = [p.grad.flatten() for p in task.trained() if p.grad is not None]
        return loss.detach().float(), torch.cat(gradients)

    (loss, gradient), (narrow_loss, narrow_gradient) = (loss_and_gradient(narrow) for narrow in (False, True))
    torch.testing.assert_close(narrow_loss, loss, rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(narrow_gradient, gradient, dim=0) > 0.97
