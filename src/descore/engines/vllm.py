"""vLLM in this process, without a line of ours in it: every setting that a reward depends on is given here."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from descore.engines.exports import EngineCheckpoint, check_runs, find_or_export
from descore.engines.two_requests import TokenOutput, TokenRequest, TwoRequestEngine, suppressed_ids
from descore.errors import ConfigError, VideoError, how_to_install
from descore.model.chat import Tokens, video_metadata
from descore.model.checkpoint import find_checkpoint
from descore.types import Paradigm

MOST_TOKENS = 32_768
"""Tokens of a clip with its prompt and chain, where the model reads more: vLLM keeps room in its cache for one such."""
CPU_CACHE = 1 << 30
"""Bytes of the cache on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise; vLLM would take nearly all memory."""
SUPPRESSED = -100.0
"""The bias of what no chain holds; vLLM takes no smaller one."""
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}


def open_vllm(source: str | Path, *, paradigm: Paradigm | None, dtype: torch.dtype | None) -> TwoRequestEngine:
    """VLLM with a checkpoint, which is exported first if it is no export.

    dtype: None is bfloat16 on a GPU and float32 on a CPU, as in our own engine. ConfigError for a checkpoint that it
    does not run, and where it is not installed or cannot start."""
    check_runs(source, find_checkpoint(source))  # first: to install vLLM would not help
    if find_spec("vllm") is None:
        raise ConfigError(
            f"engine vllm needs vllm; {how_to_install('vllm')}; for a CPU, make vllm there sets up an environment"
        )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    dtype = dtype or (torch.float32 if on_cpu else torch.bfloat16)
    checkpoint = find_or_export(source, paradigm=paradigm, dtype=dtype)
    max_model_len = min(checkpoint.longest, MOST_TOKENS)
    settings = engine_args(checkpoint, dtype=dtype, max_model_len=max_model_len, on_cpu=on_cpu)
    return TwoRequestEngine(
        checkpoint, VllmBackend(checkpoint, settings, on_cpu=on_cpu), max_model_len=max_model_len, dtype=dtype
    )


def engine_args(
    checkpoint: EngineCheckpoint, *, dtype: torch.dtype, max_model_len: int, on_cpu: bool
) -> dict[str, Any]:
    """The arguments of `vllm.LLM` that rewards, or its size, depend on."""
    args: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "dtype": str(dtype).removeprefix("torch."),
        "hf_overrides": {"head_dtype": "float32"},  # logits of bfloat16 have 8 bits
        "logprobs_mode": "raw_logits",
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # of the checkpoint's own, nothing is taken
        "max_model_len": max_model_len,
        "limit_mm_per_prompt": {"video": 1, "image": 0},
        "mm_processor_kwargs": {"do_resize": checkpoint.chat.resize, "do_sample_frames": False},  # frames are ours
        "use_tqdm_on_load": False,
    }
    if on_cpu:
        args["enforce_eager"] = True  # compiling takes longer than most runs
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            args["kv_cache_memory_bytes"] = CPU_CACHE
    return args


class VllmBackend:
    """See `two_requests.Backend`."""

    name = "vllm"

    def __init__(self, checkpoint: EngineCheckpoint, settings: Mapping[str, Any], *, on_cpu: bool) -> None:
        from vllm import LLM

        self._resize = checkpoint.chat.resize
        self._end, self._bias = checkpoint.chat.end_id, dict.fromkeys(suppressed_ids(checkpoint), SUPPRESSED)
        self.read_tokens = self.cached_tokens = 0
        """Tokens of all requests that read a reward, and how many of them came from the cache."""
        rows = checkpoint.settings.vocabulary_rows
        self._read_ids = rows.ids if rows else []
        # Its sampler is compiled apart, also in eager mode, and the first reward would wait for that.
        environment = {"PYTHONWARNINGS": "ignore", **({"TORCH_COMPILE_DISABLE": "1"} if on_cpu else {})}
        with patch.dict(os.environ, environment):
            try:
                self.llm = LLM(**settings, trust_remote_code=False)
            except (ValueError, RuntimeError, OSError) as fault:
                reason = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
                raise ConfigError(f"vllm cannot open {checkpoint.folder}: {reason}") from fault

    def send(self, requests: Sequence[TokenRequest]) -> list[TokenOutput | VideoError]:
        """All requests at once; if vLLM refuses one of them, one by one, so that the others have their outputs."""
        from vllm.exceptions import VLLMClientError

        try:
            outputs = self.llm.generate(
                [_prompt_of(request, resize=self._resize) for request in requests],
                [self._params_of(request) for request in requests],
                use_tqdm=False,
            )
        except (ValueError, VLLMClientError) as fault:
            if len(requests) == 1:
                reason = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
                return [VideoError(requests[0].turn.clip.source, f"vllm refuses it: {reason}")]
            return [self.send([request])[0] for request in requests]
        reads = [request.chain is not None for request in requests]
        for output in (output for output, read in zip(outputs, reads, strict=True) if read):
            self.read_tokens += len(output.prompt_token_ids)
            self.cached_tokens += output.num_cached_tokens or 0
        return [_output_of(output, read=read) for output, read in zip(outputs, reads, strict=True)]

    def _params_of(self, request: TokenRequest) -> Any:  # noqa: ANN401
        from vllm import SamplingParams

        if request.chain is not None:
            return SamplingParams(
                temperature=0.0, max_tokens=1, logprob_token_ids=self._read_ids, ignore_eos=True, detokenize=False
            )
        return SamplingParams(
            temperature=request.temperature,
            seed=request.seed,
            max_tokens=request.max_tokens,
            stop_token_ids=[self._end],
            logit_bias=self._bias,
            detokenize=False,
        )


def _prompt_of(request: TokenRequest, *, resize: bool) -> dict[str, Any]:
    """Tokens and frames. By its uuid vLLM knows the clip again, and neither hashes, prepares nor encodes it twice."""
    clip = request.turn.clip
    # Floats that are scaled are not rounded to whole levels: see `Chat.lay_out_prompts`.
    frames = clip.frames.astype("float32") if resize else clip.frames
    return {
        "prompt_token_ids": request.token_ids,
        "multi_modal_data": {"video": [(frames, video_metadata(clip))]},
        "multi_modal_uuids": {"video": [request.turn.uuid]},
    }


def _output_of(output: Any, *, read: bool) -> TokenOutput:  # noqa: ANN401
    [written] = output.outputs
    logits = {token: float(one.logprob) for token, one in written.logprobs[0].items()} if read else {}
    return TokenOutput(
        prompt_ids=_list(output.prompt_token_ids),
        token_ids=_list(written.token_ids),
        ended=written.finish_reason == "stop",
        logits=logits,
    )


def _list(token_ids: Sequence[int]) -> Tokens:
    return [int(token) for token in token_ids]
