"""The action of each step of an episode, and what the learned policy earns in the environment itself."""

from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError

from lottalora.data.batches.batch import Windows
from lottalora.data.spec import DataSpec
from lottalora.tasks import rollout
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class Imitation(Task):
    """Squared error of the actions over all real steps, scored by its mean.

    Further scores, of the same weights: the return of `episodes` episodes, as it is and as D4RL normalises
    it, each as mean and standard deviation over episodes.

    Args:
        net, spec, optimizer, schedule: see `Task`.
        environment: gymnasium's name.
        episodes: how many are played; 0 leaves the further scores out.
        target_return: what the policy is asked for at the first step.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        *,
        environment: str,
        episodes: int,
        target_return: float,
    ) -> None:
        super().__init__(net, MeanSquaredError(), optimizer, schedule)
        self.context, _ = spec.in_shape
        self.environment, self.episodes, self.target_return = environment, episodes, target_return
        rollout.check(environment, episodes)

    def step(self, batch: tuple[Windows, Tensor]) -> Step:
        windows, actions = batch  # (N, K, *), (N, K, actions)
        prediction = self.net(windows)[windows.mask]  # (N, K, actions) → (real steps, actions)
        target = actions[windows.mask]
        return Step(F.mse_loss(prediction, target), prediction, target)

    def further_scores(self) -> dict[str, float]:
        if not self.episodes:
            return {}
        returns = rollout.play(
            self.net,
            self.trainer.test_dataloaders.normalisation,
            environment=self.environment,
            episodes=self.episodes,
            context=self.context,
            target_return=self.target_return,
        )
        scores = {"return": returns, "d4rl_score": rollout.d4rl_score(returns)}
        of_mean = {name: float(values.mean()) for name, values in scores.items()}
        return of_mean | {f"{name}_std": float(values.std()) for name, values in scores.items()}
