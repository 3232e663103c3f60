"""DescoreModel: a backbone, one trainable query row, and a head.

    rewards_BK = model(inputs)          # whole sequences that end with the query

Knows token ids and hidden states; knows nothing of videos, prompts or losses. How chains are written is
`thinker`'s business, how tokens are laid out `data.chat`'s.

Shapes: B sequences, T tokens, D width, K named dimensions."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn

from descore.data.chat import QUERY_TOKEN, Chat, Inputs, Layout
from descore.errors import ConfigError
from descore.model.adapters import has_adapters, write_what_they_stand_beside
from descore.model.backbone import family_of, open_backbone, open_processor
from descore.model.checkpoint import (
    Settings,
    find_checkpoint,
    read_as,
    read_head,
    write_descore_files,
)
from descore.model.head import RewardHead
from descore.rubric import DEFAULT_RUBRIC
from descore.types import Paradigm


class DescoreModel(nn.Module):
    """A reward model: the backbone thinks, the query behind its chain is read by the head.

    A generative model's head has no rows (K = 0): its reward is what its chain says, which the Scorer reads."""

    def __init__(self, backbone: Any, *, chat: Chat, settings: Settings) -> None:  # noqa: ANN401
        super().__init__()
        self.backbone = backbone
        self.chat = chat
        self.settings = settings
        embedding = backbone.get_input_embeddings()
        # A row of its own, not the embedding's: only this row learns and has optimizer state. It starts as the mean
        # of the embedding's rows, where no single word pulls at it.
        self.query = nn.Parameter(embedding.weight.detach().float().mean(dim=0))
        self.head = RewardHead(embedding.weight.shape[1], outputs=settings.outputs)
        self.query_id = chat.query_id
        embedding.register_forward_hook(self._insert_query)

    @classmethod
    def from_backbone(
        cls,
        source: Any,  # noqa: ANN401  # a path, a hub id or a transformers config
        *,
        processor: Any = None,  # noqa: ANN401
        settings: Settings | None = None,
        rubric: str = DEFAULT_RUBRIC,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Start a new reward model from a backbone's folder, hub id, or config (with random weights).

        The query token joins the tokenizer, and the embedding grows only if it has no row to spare. The head is
        random until it is trained: `settings.trained_on` stays None, and scoring says so. With `settings.paradigm`
        generative there is no head, and the backbone judges as it is. A config brings no processor, so one must be
        given."""
        if processor is None:
            if not isinstance(source, str | Path):
                raise ConfigError("from_backbone: a config brings no processor; give processor=")
            processor = open_processor(source)
        backbone = open_backbone(source, dtype=dtype)
        processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)
        if len(processor.tokenizer) > backbone.get_input_embeddings().weight.shape[0]:
            backbone.resize_token_embeddings(len(processor.tokenizer), pad_to_multiple_of=64)
        settings = settings or Settings()
        return cls(backbone, chat=Chat(processor, rubric, Layout(settings.layout)), settings=settings)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        paradigm: Paradigm | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Read a checkpoint from a folder, a hub id, or the bundled name `tiny`, ready to score.

        Paradigm: the checkpoint's own; "generative" opens any checkpoint, or a plain backbone, as a judge whose reward
        is what it writes. Device: a GPU if there is one. Precision: bfloat16 on a GPU, float32 on a CPU; query and head
        are always float32. Anything missing or ill-fitting raises CheckpointError."""
        folder = find_checkpoint(source)
        settings, rubric = read_as(folder, paradigm)
        device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        if settings.paradigm == "generative":
            return cls.from_backbone(folder, settings=settings, rubric=rubric, dtype=dtype).to(device).eval()
        chat = Chat(open_processor(folder), rubric, Layout(settings.layout))
        model = cls(open_backbone(folder, dtype=dtype), chat=chat, settings=settings)
        weights = read_head(folder, width=model.query.shape[0], outputs=settings.outputs)
        with torch.no_grad():
            model.query.copy_(weights["query"])
            model.head.weight.copy_(weights["head"])
        return model.to(device).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint directory. It is written aside and then put in place, so it is never half there."""
        folder = Path(folder)
        aside, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        self.backbone.save_pretrained(aside)
        if has_adapters(self.backbone):
            write_what_they_stand_beside(self.backbone, aside)
        self.chat.processor.save_pretrained(aside)
        write_descore_files(
            aside, settings=self.settings, rubric=self.chat.rubric, query=self.query, head=self.head.weight
        )
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def family(self) -> ModuleType:
        """The module that knows the backbone's family. Looked up, since a kept module could not be copied."""
        return family_of(self.backbone.config.model_type)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.query.device

    def forward(self, inputs: Inputs) -> Tensor:
        """Rewards (B, K) of whole sequences that end with the query, as `Chat.lay_out_chains` gives them."""
        return self.rewards(self.hidden(inputs))

    def hidden(self, inputs: Inputs) -> Tensor:
        """Final, normalized hidden states (B, T, D) of whole sequences; the vision tower runs once."""
        inputs = {key: value for key, value in inputs.items() if key != "chain_mask"}
        position_3BT = self.family.positions(self.backbone, inputs)
        out = self.backbone.model(**inputs, position_ids=position_3BT, use_cache=False)
        return out.last_hidden_state  # type: ignore[no-any-return]

    def rewards(self, hidden_BTD: Tensor) -> Tensor:
        """Rewards (B, K) at the last column."""
        rewards_BK: Tensor = self.head(hidden_BTD)
        return rewards_BK

    def _insert_query(self, _embedding: nn.Module, args: tuple[Tensor, ...], embedded_BTD: Tensor) -> Tensor:
        is_query_BT1 = (args[0] == self.query_id).unsqueeze(-1)
        return torch.where(is_query_BT1, self.query.to(embedded_BTD.dtype), embedded_BTD)


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        reason = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
        raise ConfigError(f"device {str(device)!r} cannot be used here: {reason}") from fault
