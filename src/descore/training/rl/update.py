"""An update of stage 2: gradients of the policy's objective on sampled chains and of the pair loss on their rewards.

From a model, rollouts and the settings, `Updater.learn` leaves gradients that sum over packs and processes to those of

    clipped policy objective + beta · k3 + bt_weight · Bradley-Terry over opposing chains          (DESIGN 3)

and adds to the metrics. Memory is that of one pack: the pair loss couples the packs of a and b through rewards alone,
so its derivative in each reward, taken beforehand, is a constant in the pack's own forward. That is the exact gradient.

Shapes: B pairs, C = 2 B clips (all a, then all b), G chains for each, R chains of a pack, N chain tokens, K named
dimensions."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from descore.model.modeling import DescoreModel, has_adapters
from descore.training.collate import TrainingPair, preference_labels
from descore.training.config import TrainableConfig
from descore.training.losses import bradley_terry, bradley_terry_ties, group_advantages, k3, policy_loss, token_weights
from descore.training.metrics import MetricAccumulator
from descore.training.rl.config import Opponents, RlConfig, RlLossConfig
from descore.training.rl.packing import Pack, PackOutput, forward_pack, pack_groups
from descore.training.rl.rollout import Rollout, max_chain_tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceModel:
    """The model before the first update: the policy that KL is measured to, and the rewards that drift is measured to.

    Where only adapters, query and head are trained, it is the trained model with its adapters switched off and the
    first query and head put back, which takes no memory. Where a part is trained in full, it is a copy."""

    copied: DescoreModel | None
    """None: the trained model serves, as `activated` changes it."""
    query: Tensor
    head: Tensor

    @classmethod
    def of(cls, model: DescoreModel, trainable: TrainableConfig) -> "ReferenceModel":
        """The model as it is now. Its adapters, if it has any, must be new, or not yet read from a checkpoint."""
        copied = copy.deepcopy(model).requires_grad_(False) if "full" in trainable.backbone_modes.values() else None
        return cls(copied=copied, query=model.query.detach().clone(), head=model.head.weight.detach().clone())

    @contextmanager
    def activated(self, model: DescoreModel) -> Iterator[DescoreModel]:
        """The model as it was, within the block. No weights may be updated there."""
        if self.copied is not None:
            yield self.copied.to(model.device).train(model.training)
            return
        with _without_adapters(model), _rows(model, query=self.query, head=self.head):
            yield model


@contextmanager
def _without_adapters(model: DescoreModel) -> Iterator[None]:
    adapters = has_adapters(model.backbone)
    if adapters:
        model.backbone.disable_adapters()
    try:
        yield
    finally:
        if adapters:
            model.backbone.enable_adapters()


@contextmanager
def _rows(model: DescoreModel, *, query: Tensor, head: Tensor) -> Iterator[None]:
    rows = (model.query, model.head.weight)
    current = [row.data for row in rows]
    with torch.no_grad():
        for row, first in zip(rows, (query, head), strict=True):
            row.data = first.to(row.device)
    try:
        yield
    finally:
        for row, data in zip(rows, current, strict=True):
            row.data = data


@dataclass(slots=True, kw_only=True, eq=False)
class PackTargets:
    """A pack, and the terms of the loss of each of its chains. All on the model's device."""

    pack: Pack
    rollout: int
    """The number of its rollout."""
    sampled_RK: Tensor
    """The rewards of the chains as they were sampled."""
    advantage_R: Tensor
    weight_R: Tensor
    """The weight of each of the chain's tokens in the whole update."""
    reward_gradient_RK: Tensor | None = None
    """Derivative of the weighted pair loss in the chain's rewards; None without such a loss."""
    old_log_prob_N: Tensor | None = None
    """Before the first update from this rollout; None until it is computed."""
    ref_log_prob_N: Tensor | None = None
    """Under the reference model; None without one, or until it is computed."""


class Updater:
    """Computes the gradients of rollouts, in `policy.num_iterations` passes.

    Each process has rollouts of its own, maybe none; the gradients of all sum to the update's."""

    def __init__(
        self,
        model: DescoreModel,
        *,
        reference: ReferenceModel | None,
        config: RlConfig,
        accelerator: Accelerator,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """`reference`: None where no KL is measured. autocast: the precision of the forward."""
        self.model = model
        self.reference = reference
        self.config = config
        self.accelerator = accelerator
        self.autocast = autocast
        self.has_rewards = config.paradigm == "descore"
        """Whether there is a head whose rewards are trained."""

    def learn(self, rollouts: Sequence[Rollout], *, step: Callable[[], None], metrics: MetricAccumulator) -> None:
        """All passes over this process's rollouts. `step` is called after each, with its gradients in the weights."""
        packs, rewards = self._lay_out(rollouts), [rollout.rewards for rollout in rollouts]
        for iteration in range(self.config.policy.num_iterations):
            self.model.train()
            if iteration and self.has_rewards:
                self._update_rewards(packs, rewards)
            share = 1 / self.accelerator.num_processes
            pair_loss = self._set_reward_gradients(packs, rollouts, rewards, metrics) if self.has_rewards else 0.0
            policy_loss = sum(self._backward(pack, first=iteration == 0, metrics=metrics) for pack in packs)
            metrics.add_mean("policy_loss", policy_loss, share)
            metrics.add_mean("loss", policy_loss + self.config.loss.bt_weight * pair_loss, share)
            step()

    def _lay_out(self, rollouts: Sequence[Rollout]) -> list[PackTargets]:
        targets = []
        for number, (rollout, weight_CG) in enumerate(zip(rollouts, self._weigh(rollouts), strict=True)):
            values_of_chains = (advantages(rollout, config=self.config), weight_CG, rollout.rewards)
            chains = [[list(completion.token_ids) for completion in group] for group in rollout.groups]
            budget = self.config.policy.token_budget
            for pack in pack_groups(self.model, rollout.prompts, chains, token_budget=budget):
                advantage_R, weight_R, sampled_RK = (
                    _select(pack, values).to(self.model.device) for values in values_of_chains
                )
                targets.append(
                    PackTargets(
                        pack=pack, rollout=number, sampled_RK=sampled_RK, advantage_R=advantage_R, weight_R=weight_R
                    )
                )
        return targets

    def _weigh(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """By rollout, the weight of each chain's tokens (C, G) in the update of all processes."""
        policy, limit = self.config.policy, max_chain_tokens(self.model, self.config)
        counted = [rollout.counted(mask_truncated=policy.mask_truncated_completions) for rollout in rollouts]
        lengths = [c.num_tokens for rollout in rollouts for group in rollout.groups for c in group]
        counts = [bool(count) for counted_CG in counted for count in counted_CG.flatten()]
        own = list(zip(lengths, counts, strict=True))
        gathered = gather_object([own])
        update = torch.tensor([chain for process in gathered for chain in process], dtype=torch.long).reshape(-1, 2)
        weight_R = token_weights(*update.unbind(dim=1), loss_type=policy.loss_type, max_length=limit)
        before = sum(len(process) for process in gathered[: self.accelerator.process_index])
        weights = torch.split(weight_R[before : before + len(own)], [counted_CG.numel() for counted_CG in counted])
        return [weight_r.reshape(counted_CG.shape) for weight_r, counted_CG in zip(weights, counted, strict=True)]

    def _set_reward_gradients(
        self,
        packs: Sequence[PackTargets],
        rollouts: Sequence[Rollout],
        rewards: Sequence[Tensor],
        metrics: MetricAccumulator,
    ) -> float:
        """Set each pack's derivatives of the pair loss, and give this process's share of that loss."""
        leaves = [reward_CGK.detach().requires_grad_() for reward_CGK in rewards]
        losses = [
            pair_loss(leaf, rollout.pairs, loss=self.config.loss)
            for leaf, rollout in zip(leaves, rollouts, strict=True)
        ]
        count = sum(labels for _, labels in losses)
        update_count = max(sum(gather_object([count])), 1)
        if not losses:
            return 0.0
        loss = torch.stack([loss for loss, _ in losses]).sum()
        gradients = torch.autograd.grad(self.config.loss.bt_weight / update_count * loss, leaves)
        for targets in packs:
            targets.reward_gradient_RK = _select(targets.pack, gradients[targets.rollout]).to(self.model.device)
        metrics.add_mean("pair_loss", loss.item(), count)
        return float(loss.item() / update_count)

    def _backward(self, targets: PackTargets, *, first: bool, metrics: MetricAccumulator) -> float:
        """Add a pack's gradients, and give its part of the policy's loss."""
        if first and self.reference is not None:
            self._read_reference(targets, metrics)
        with self.autocast():
            output = self._forward(self.model, targets.pack, entropy=first)
        if first:
            targets.old_log_prob_N = output.log_prob_N.detach()
            self._add_first_metrics(targets, output, metrics)
        loss = self._policy_loss(targets, output, metrics)
        total = loss
        if targets.reward_gradient_RK is not None and output.reward_RK is not None:
            total = loss + (output.reward_RK * targets.reward_gradient_RK).sum()
        torch.autograd.backward(total)
        return float(loss.detach())

    def _policy_loss(self, targets: PackTargets, output: PackOutput, metrics: MetricAccumulator) -> Tensor:
        """The pack's part of the clipped objective and of the KL to the reference model: scalar."""
        assert targets.old_log_prob_N is not None
        policy, weight_N = self.config.policy, targets.weight_R[output.chain_of_N]
        terms = policy_loss(
            output.log_prob_N,
            targets.old_log_prob_N,
            targets.advantage_R[output.chain_of_N],
            weight_N=weight_N,
            epsilon_low=policy.epsilon,
            epsilon_high=policy.epsilon_high or policy.epsilon,
            dual_clip=policy.dual_clip,
        )
        metrics.add_mean("clip_share", int(terms.clipped), int(terms.tokens))
        if targets.ref_log_prob_N is None:
            return terms.loss
        used_N = weight_N > 0
        log_prob_n = output.log_prob_N[used_N]
        kl_n = k3(log_prob_n if policy.beta else log_prob_n.detach(), targets.ref_log_prob_N[used_N])
        metrics.add_mean("kl", float(kl_n.detach().sum()), int(terms.tokens))
        return terms.loss + policy.beta * (weight_N[used_N] * kl_n).sum() if policy.beta else terms.loss

    def _add_first_metrics(self, targets: PackTargets, output: PackOutput, metrics: MetricAccumulator) -> None:
        """The metrics of the first pass, where the weights are those that sampled the chains."""
        if output.entropy_N is not None:
            metrics.add_mean("entropy", float(output.entropy_N.sum()), len(output.entropy_N))
        if output.reward_RK is not None:
            # The same weights, once while sampling and once packed: only roundings differ.
            gap_RK = (output.reward_RK.detach() - targets.sampled_RK).abs()
            metrics.add_mean("reward_gap", float(gap_RK.sum()), gap_RK.numel())

    @torch.no_grad()
    def _read_reference(self, targets: PackTargets, metrics: MetricAccumulator) -> None:
        """Set the log-probabilities under the reference model, and measure how far the rewards have drifted from
        its."""
        assert self.reference is not None
        with self.reference.activated(self.model) as model, self.autocast():
            output = self._forward(model, targets.pack)
        targets.ref_log_prob_N = output.log_prob_N
        if output.reward_RK is not None:
            drift_RK = targets.sampled_RK - output.reward_RK
            metrics.add_mean("reward_drift", float(drift_RK.sum()), drift_RK.numel())

    @torch.no_grad()
    def _update_rewards(self, packs: Sequence[PackTargets], rewards: Sequence[Tensor]) -> None:
        """Replace the rewards by those of the current weights."""
        for targets in packs:
            with self.autocast():
                reward_RK = self._forward(self.model, targets.pack).reward_RK
            assert reward_RK is not None
            rewards[targets.rollout][_indices(targets.pack)] = reward_RK.cpu()

    def _forward(self, model: DescoreModel, pack: Pack, *, entropy: bool = False) -> PackOutput:
        temperature = self.config.rollout.temperature
        return forward_pack(model, pack, temperature=temperature, reward=self.has_rewards, entropy=entropy)


def advantages(rollout: Rollout, *, config: RlConfig) -> Tensor:
    """The advantage of each chain in its group (C, G)."""
    counted_CG = rollout.counted(mask_truncated=config.policy.mask_truncated_completions)
    return group_advantages(rollout.rollout_rewards, counted_CG=counted_CG, scale=config.policy.scale_rewards)


def pair_loss(reward_CGK: Tensor, pairs: Sequence[TrainingPair], *, loss: RlLossConfig) -> tuple[Tensor, int]:
    """Sum of the pair loss over labels and opposing chains, and their number."""
    difference_BXK, preference_BXK, labelled_BXK = reward_differences(reward_CGK, pairs, opponents=loss.opponents)
    if loss.kind == "ties":
        total = bradley_terry_ties(difference_BXK, preference_BXK, labelled_BXK, k=loss.k, reduction="sum")
        return total, int(labelled_BXK.sum())
    decided_BXK = labelled_BXK & (preference_BXK != 0)
    return bradley_terry(difference_BXK * preference_BXK, decided_BXK, reduction="sum"), int(decided_BXK.sum())


def reward_differences(
    reward_CGK: Tensor, pairs: Sequence[TrainingPair], *, opponents: Opponents
) -> tuple[Tensor, Tensor, Tensor]:
    """Reward of a minus that of b over X opposing chains (B, X, K), with preferences and whether there is a label of
    the same shape. X = G for matched opponents, G² for all."""
    a_BGK, b_BGK = reward_CGK.tensor_split(2)
    difference_BXK = a_BGK - b_BGK
    if opponents == "all":
        difference_BXK = (a_BGK[:, :, None] - b_BGK[:, None]).flatten(1, 2)
    preference_BXK, labelled_BXK = (
        values_BK[:, None].expand_as(difference_BXK) for values_BK in preference_labels(pairs)
    )
    return difference_BXK, preference_BXK, labelled_BXK


def _indices(pack: Pack) -> tuple[list[int], list[int]]:
    return [clip for clip, _ in pack.chains], [g for _, g in pack.chains]


def _select(pack: Pack, values_CG: Tensor) -> Tensor:
    """The values of a pack's chains (R, ...)."""
    return values_CG[_indices(pack)]
