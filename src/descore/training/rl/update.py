"""An update of stage 2: what sampled chains are worth becomes a gradient, and so do the rewards behind them.

In: a model, rollouts, the settings. Out: gradients that sum over packs and processes to those of

    clipped policy objective + beta · k3 + bt_weight · Bradley-Terry over opposing chains          (DESIGN 3)

and what is to be recorded of it. Memory is that of one pack: the pair loss couples the packs of a and b through rewards
alone, so its derivative in each reward, taken beforehand, is a constant in the pack's own forward. That is the exact
gradient. Knows packs and maths; knows nothing of optimizers, files or where rollouts come from.

Shapes: B pairs, C = 2 B clips (all a, then all b), G chains for each, R chains of a pack, N chain tokens, K named
dimensions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from descore.model.modeling import DescoreModel
from descore.training.collate import MISSING, TrainingPair
from descore.training.losses import bradley_terry, bradley_terry_ties
from descore.training.metrics import MetricAccumulator
from descore.training.rl.config import Opponents, RlConfig, RlLossConfig
from descore.training.rl.grpo import group_advantages, k3, policy_loss, token_weights
from descore.training.rl.packing import Pack, Read, pack_groups, read_pack
from descore.training.rl.reference_model import ReferenceModel
from descore.training.rl.rollout import Rollout, limit_of


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """A pack, and what is to be learned from each of its chains. All on the model's device."""

    pack: Pack
    rollout: int
    """Which of the rollouts it is of."""
    sampled_RK: Tensor
    """The chains' rewards as they were sampled."""
    advantage_R: Tensor
    weight_R: Tensor
    """Of each of the chain's tokens, in the whole update."""
    slope_RK: Tensor | None = None
    """Derivative of the weighted pair loss in the chain's rewards; None: there is no such loss."""
    old_log_prob_N: Tensor | None = None
    """Before the first update from this rollout; None until it was read."""
    start_log_prob_N: Tensor | None = None
    """Of the frozen start; None: it is not asked, or not yet."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairLabels:
    """What people say of B pairs, (B, K) each, on the CPU."""

    preference_BK: Tensor
    """1 for a, -1 for b, 0 for a tie or no label."""
    labelled_BK: Tensor

    @classmethod
    def of(cls, pairs: Sequence[TrainingPair]) -> "PairLabels":
        """The labels of these pairs."""
        preference_BK = torch.from_numpy(np.stack([p.preference_K for p in pairs]).astype(np.int64))
        labelled_BK = preference_BK != MISSING
        return cls(preference_BK=preference_BK.masked_fill(~labelled_BK, 0), labelled_BK=labelled_BK)


class Updater:
    """Learns from rollouts, with as many passes as the config says.

    Each process has rollouts of its own, maybe none; the gradients of all add up to the update's."""

    def __init__(
        self,
        model: DescoreModel,
        *,
        start: ReferenceModel | None,
        config: RlConfig,
        accelerator: Accelerator,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """`start`: None where nothing is held against it. autocast: the precision of the forward."""
        self.model = model
        self.start = start
        self.config = config
        self.accelerator = accelerator
        self.autocast = autocast
        self.scores = config.paradigm == "descore"
        """Whether there are rewards that learn."""

    def learn(self, rollouts: Sequence[Rollout], *, step: Callable[[], None], tally: MetricAccumulator) -> None:
        """All passes over one process's rollouts. `step` is called whenever a pass has left its gradients."""
        works, rewards = self._lay_out(rollouts), [rollout.rewards for rollout in rollouts]
        for iteration in range(self.config.policy.num_iterations):
            self.model.train()
            if iteration and self.scores:
                self._read_rewards(works, rewards)
            share = 1 / self.accelerator.num_processes
            pair_loss = self._take_slopes(works, rollouts, rewards, tally) if self.scores else 0.0
            policy_loss = sum(self._backward(work, first=iteration == 0, tally=tally) for work in works)
            tally.mean("policy_loss", policy_loss, share)
            tally.mean("loss", policy_loss + self.config.loss.bt_weight * pair_loss, share)
            step()

    def _lay_out(self, rollouts: Sequence[Rollout]) -> list[Work]:
        works = []
        for number, (rollout, weight_CG) in enumerate(zip(rollouts, self._weigh(rollouts), strict=True)):
            known = (advantages(rollout, config=self.config), weight_CG, rollout.rewards)
            chains = [[list(completion.token_ids) for completion in group] for group in rollout.groups]
            budget = self.config.policy.token_budget
            for pack in pack_groups(self.model, rollout.prompts, chains, token_budget=budget):
                advantage_R, weight_R, sampled_RK = (_of(pack, values).to(self.model.device) for values in known)
                works.append(
                    Work(pack=pack, rollout=number, sampled_RK=sampled_RK, advantage_R=advantage_R, weight_R=weight_R)
                )
        return works

    def _weigh(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """By rollout, the weight of each chain's tokens (C, G) in the update of all processes."""
        policy, limit = self.config.policy, limit_of(self.model, self.config)
        counted = [rollout.counted(mask_truncated=policy.mask_truncated_completions) for rollout in rollouts]
        lengths = [c.num_tokens for rollout in rollouts for group in rollout.groups for c in group]
        counts = [bool(count) for counted_CG in counted for count in counted_CG.flatten()]
        mine = list(zip(lengths, counts, strict=True))
        everyones = gather_object([mine])
        whole = torch.tensor([one for some in everyones for one in some], dtype=torch.long).reshape(-1, 2)
        weight_R = token_weights(*whole.unbind(dim=1), loss_type=policy.loss_type, max_length=limit)
        before = sum(len(some) for some in everyones[: self.accelerator.process_index])
        own = torch.split(weight_R[before : before + len(mine)], [counted_CG.numel() for counted_CG in counted])
        return [weight_r.reshape(counted_CG.shape) for weight_r, counted_CG in zip(own, counted, strict=True)]

    def _take_slopes(
        self, works: Sequence[Work], rollouts: Sequence[Rollout], rewards: Sequence[Tensor], tally: MetricAccumulator
    ) -> float:
        """Tell each pack how the pair loss changes with its rewards. This process's share of that loss."""
        leaves = [reward_CGK.detach().requires_grad_() for reward_CGK in rewards]
        found = [
            pair_loss(leaf, PairLabels.of(rollout.pairs), loss=self.config.loss)
            for leaf, rollout in zip(leaves, rollouts, strict=True)
        ]
        own = sum(count for _, count in found)
        everyones = max(sum(gather_object([own])), 1)
        if not found:
            return 0.0
        loss = torch.stack([loss for loss, _ in found]).sum()
        slopes = torch.autograd.grad(self.config.loss.bt_weight / everyones * loss, leaves)
        for work in works:
            work.slope_RK = _of(work.pack, slopes[work.rollout]).to(self.model.device)
        tally.mean("pair_loss", loss.item(), own)
        return float(loss.item() / everyones)

    def _backward(self, work: Work, *, first: bool, tally: MetricAccumulator) -> float:
        """Add a pack's gradients. Its part of the policy's loss."""
        if first and self.start is not None:
            self._read_start(work, tally)
        with self.autocast():
            read = self._read(self.model, work.pack, entropy=first)
        if first:
            work.old_log_prob_N = read.log_prob_N.detach()
            self._measure(work, read, tally)
        loss = self._policy_loss(work, read, tally)
        whole = loss
        if work.slope_RK is not None and read.reward_RK is not None:
            whole = loss + (read.reward_RK * work.slope_RK).sum()
        torch.autograd.backward(whole)
        return float(loss.detach())

    def _policy_loss(self, work: Work, read: Read, tally: MetricAccumulator) -> Tensor:
        """The clipped objective, and the distance from the start: scalar, this pack's part."""
        assert work.old_log_prob_N is not None
        policy, weight_N = self.config.policy, work.weight_R[read.chain_of_N]
        terms = policy_loss(
            read.log_prob_N,
            work.old_log_prob_N,
            work.advantage_R[read.chain_of_N],
            weight_N=weight_N,
            epsilon_low=policy.epsilon,
            epsilon_high=policy.epsilon_high or policy.epsilon,
        )
        tally.mean("clip_share", int(terms.clipped), int(terms.tokens))
        if work.start_log_prob_N is None:
            return terms.loss
        used_N = weight_N > 0
        log_prob_n = read.log_prob_N[used_N]
        kl_n = k3(log_prob_n if policy.beta else log_prob_n.detach(), work.start_log_prob_N[used_N])
        tally.mean("kl", float(kl_n.detach().sum()), int(terms.tokens))
        return terms.loss + policy.beta * (weight_N[used_N] * kl_n).sum() if policy.beta else terms.loss

    def _measure(self, work: Work, read: Read, tally: MetricAccumulator) -> None:
        """What the first pass says of the model that wrote the chains."""
        if read.entropy_N is not None:
            tally.mean("entropy", float(read.entropy_N.sum()), len(read.entropy_N))
        if read.reward_RK is not None:
            # The same weights read it twice: in one pass while writing, and packed. Roundings are all that differs.
            gap_RK = (read.reward_RK.detach() - work.sampled_RK).abs()
            tally.mean("reward_gap", float(gap_RK.sum()), gap_RK.numel())

    @torch.no_grad()
    def _read_start(self, work: Work, tally: MetricAccumulator) -> None:
        """What the frozen start says of a pack, and how far the rewards have drifted from its."""
        assert self.start is not None
        with self.start.activated(self.model) as model, self.autocast():
            read = self._read(model, work.pack)
        work.start_log_prob_N = read.log_prob_N
        if read.reward_RK is not None:
            drift_RK = work.sampled_RK - read.reward_RK
            tally.mean("reward_drift", float(drift_RK.sum()), drift_RK.numel())

    @torch.no_grad()
    def _read_rewards(self, works: Sequence[Work], rewards: Sequence[Tensor]) -> None:
        """Put the rewards under the weights as they are now in the place of those before."""
        for work in works:
            with self.autocast():
                reward_RK = self._read(self.model, work.pack).reward_RK
            assert reward_RK is not None
            rewards[work.rollout][_members(work.pack)] = reward_RK.cpu()

    def _read(self, model: DescoreModel, pack: Pack, *, entropy: bool = False) -> Read:
        temperature = self.config.rollout.temperature
        return read_pack(model, pack, temperature=temperature, reward=self.scores, entropy=entropy)


def advantages(rollout: Rollout, *, config: RlConfig) -> Tensor:
    """How much better each chain is than its group (C, G)."""
    counted_CG = rollout.counted(mask_truncated=config.policy.mask_truncated_completions)
    return group_advantages(rollout.rollout_rewards, counted_CG=counted_CG, scale=config.policy.scale_rewards)


def pair_loss(reward_CGK: Tensor, labels: PairLabels, *, loss: RlLossConfig) -> tuple[Tensor, int]:
    """Sum over labels and opposing chains of the pair loss, and how many of them there are."""
    difference_BXK, preference_BXK, labelled_BXK = opposed(reward_CGK, labels, opponents=loss.opponents)
    if loss.kind == "ties":
        found = bradley_terry_ties(difference_BXK, preference_BXK, labelled_BXK, k=loss.k, reduction="sum")
        return found, int(labelled_BXK.sum())
    decided_BXK = labelled_BXK & (preference_BXK != 0)
    return bradley_terry(difference_BXK * preference_BXK, decided_BXK, reduction="sum"), int(decided_BXK.sum())


def opposed(reward_CGK: Tensor, labels: PairLabels, *, opponents: Opponents) -> tuple[Tensor, Tensor, Tensor]:
    """Reward of a less that of b over X opposing chains (B, X, K), and the labels as often: X = G, or G² for all."""
    a_BGK, b_BGK = reward_CGK.tensor_split(2)
    difference_BXK = a_BGK - b_BGK
    if opponents == "all":
        difference_BXK = (a_BGK[:, :, None] - b_BGK[:, None]).flatten(1, 2)
    preference_BXK, labelled_BXK = (
        values_BK[:, None].expand_as(difference_BXK) for values_BK in (labels.preference_BK, labels.labelled_BK)
    )
    return difference_BXK, preference_BXK, labelled_BXK


def _members(pack: Pack) -> tuple[list[int], list[int]]:
    return [clip for clip, _ in pack.chains], [g for _, g in pack.chains]


def _of(pack: Pack, values_CG: Tensor) -> Tensor:
    """Those of a pack's chains (R, ...)."""
    return values_CG[_members(pack)]
