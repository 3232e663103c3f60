"""A fake `vllm` module and a stub server. Behind both is transformers' own model of an export, so that tokens, limits
and logits are those of a real engine; what they refuse, and how they fail, is as the real ones do it."""

import base64
import io
import json
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import httpx2
import numpy as np
import torch
from PIL import Image

from descore.model.modeling import DescoreModel


class Continuer:
    """Continues tokens behind one video."""

    def __init__(self, folder):
        self.model = DescoreModel.from_pretrained(folder, device="cpu")
        self.tokenizer = self.model.chat.tokenizer

    def expand(self, token_ids, frames, metadata):
        """The inputs of tokens with one placeholder for their video."""
        processor = self.model.chat.processor
        videos = [torch.from_numpy(frames).permute(0, 3, 1, 2)]
        options = {"do_sample_frames": False, "do_resize": False, "return_tensors": "pt"}
        video = dict(processor(text=[processor.video_token], videos=videos, video_metadata=[metadata], **options))
        place = token_ids.index(self.tokenizer.convert_tokens_to_ids(processor.video_token))
        parts = [torch.tensor([part], dtype=torch.long) for part in (token_ids[:place], token_ids[place + 1 :])]
        zeros = [torch.zeros_like(part) for part in parts]
        ids = torch.cat([parts[0], video["input_ids"], parts[1]], dim=1)
        kinds = torch.cat([zeros[0], video["mm_token_type_ids"], zeros[1]], dim=1)
        return {**video, "input_ids": ids, "mm_token_type_ids": kinds}

    @torch.inference_mode()
    def logits(self, inputs, written):
        """Of the token behind those."""
        ids = torch.cat([inputs["input_ids"], torch.tensor([written], dtype=torch.long)], dim=1)
        kinds = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(written)))
        whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}
        return self.model.backbone.get_output_embeddings()(self.model.hidden(whole)[:, -1])[0].float()

    def write(self, inputs, *, temperature, seed, max_tokens, stop, bias):
        """Tokens, and whether one of `stop` ended them."""
        chance, written = torch.Generator().manual_seed(seed or 0), []
        while len(written) < max_tokens:
            logits = self.logits(inputs, written).clone()
            for token, value in bias.items():
                logits[int(token)] += value
            weights = (logits / (temperature or 1)).softmax(dim=-1)
            drawn = torch.multinomial(weights, 1, generator=chance) if temperature else logits.argmax()
            written.append(int(drawn))
            if written[-1] in stop:
                return written, True
        return written, False


class ClientError(Exception):
    """As vllm.exceptions.VLLMClientError."""


def fake_vllm(folder, *, on_cpu=True):
    """The module `vllm`. `calls` has each generate's prompts and parameters; `refuse` is a prompt that it refuses."""
    module, continuer = ModuleType("vllm"), Continuer(folder)
    module.__spec__, module.calls, module.made, module.refuse = ModuleSpec("vllm", None), [], [], None
    module.spoil = lambda output: output

    class LLM:
        def __init__(self, **settings):
            module.made.append(settings)
            if module.refuse == "start":
                raise RuntimeError("Engine core initialization failed.\nsee above")

        def generate(self, prompts, params, *, use_tqdm):
            assert not use_tqdm, "it shows bars"
            module.calls.append(list(zip(prompts, params, strict=True)))
            if any(module.refuse == len(prompt["prompt_token_ids"]) for prompt in prompts):
                raise ClientError("The decoder prompt is too long\nand so on")
            return [module.spoil(self._one(*each)) for each in zip(prompts, params, strict=True)]

        def _one(self, prompt, params):
            [(frames, metadata)] = prompt["multi_modal_data"]["video"]
            inputs = continuer.expand(prompt["prompt_token_ids"], frames, metadata)
            written, ended = continuer.write(
                inputs,
                temperature=params.temperature,
                seed=getattr(params, "seed", None),
                max_tokens=params.max_tokens,
                stop=getattr(params, "stop_token_ids", ()),
                bias=getattr(params, "logit_bias", {}),
            )
            logits = continuer.logits(inputs, [])
            asked = getattr(params, "logprob_token_ids", ())
            found = {token: SimpleNamespace(logprob=float(logits[token])) for token in {*asked, written[0]}}
            output = SimpleNamespace(
                token_ids=written, finish_reason="stop" if ended else "length", logprobs=[found] if asked else None
            )
            ids = inputs["input_ids"][0].tolist()
            return SimpleNamespace(outputs=[output], prompt_token_ids=ids, num_cached_tokens=0)

    module.LLM, module.SamplingParams = LLM, SimpleNamespace
    module.platforms, module.exceptions = ModuleType("vllm.platforms"), ModuleType("vllm.exceptions")
    module.platforms.current_platform = SimpleNamespace(is_cpu=lambda: on_cpu)
    module.exceptions.VLLMClientError = ClientError
    return module


class StubServer(httpx2.BaseTransport):
    """A server in OpenAI's form, which answers as vLLM 0.32 does. `faults` are taken first: a status, an exception, or
    a function of the answer."""

    def __init__(self, folder, *, name="vllm"):
        self.continuer, self.name, self.faults, self.bodies = Continuer(folder), name, [], []
        self.videos, self.length, self.headers, self.trusts = {}, 512, [], True

    def handle_request(self, request):
        self.headers.append(dict(request.headers))
        if request.url.path == "/v1/models":
            model = {"id": self.name, "root": self.name, "max_model_len": self.length}
            return self._answer({"data": [model]})
        if request.url.path != "/v1/chat/completions":
            return httpx2.Response(404, text="Not Found")
        body = json.loads(request.content)
        self.bodies.append(body)
        return self._answer(body)

    def _answer(self, body):
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, int):
            return httpx2.Response(fault, json={"error": {"message": "as it\nwas asked"}})
        answer = body if "data" in body else self._complete(body)
        if isinstance(answer, httpx2.Response):
            return answer
        return fault(answer) if fault else httpx2.Response(200, json=answer)

    def _complete(self, body):
        video = next(part for part in body["messages"][0]["content"] if part["type"] == "video_url")
        if video["video_url"] is not None:
            self.videos[video["uuid"]] = open_frames(video["video_url"]["url"])
        if video["uuid"] not in self.videos:
            return httpx2.Response(400, json={"error": {"message": "Data for video has not been cached"}})
        if not self.trusts:
            return httpx2.Response(400, json={"error": {"message": "Per-request media_io_kwargs are disabled"}})
        times = body["media_io_kwargs"]["video"]
        assert all(isinstance(number, int) for number in times["frames_indices"]), "servers want whole numbers"
        frames = self.videos[video["uuid"]]
        token_ids = self.continuer.tokenizer(self._render(body), add_special_tokens=False)["input_ids"]
        metadata = {"fps": times["fps"], "frames_indices": times["frames_indices"], "total_num_frames": len(frames)}
        inputs = self.continuer.expand(token_ids, frames, metadata)
        written, ended = self.continuer.write(
            inputs,
            temperature=body["temperature"],
            seed=body["seed"],
            max_tokens=body["max_tokens"],
            stop=body.get("stop_token_ids", ()),
            bias=body.get("logit_bias", {}),
        )
        logprobs = self.continuer.logits(inputs, []).log_softmax(dim=-1)
        asked = [{"token": f"token_id:{i}", "logprob": float(logprobs[i])} for i in body.get("logprob_token_ids", ())]
        choice = {
            "token_ids": written,
            "finish_reason": "stop" if ended else "length",
            "logprobs": {"content": [{"token": f"token_id:{written[0]}", "logprob": -1.0, "top_logprobs": asked}]},
        }
        return {"choices": [choice], "prompt_token_ids": inputs["input_ids"][0].tolist()}

    def _render(self, body):
        """The conversation by the export's own template."""
        kinds = {"video_url": "video"}
        messages = [
            {**m, "content": [{**part, "type": kinds.get(part["type"], part["type"])} for part in m["content"]]}
            for m in body["messages"]
        ]
        options = {key: body[key] for key in ("add_generation_prompt", "continue_final_message") if key in body}
        return self.continuer.model.chat.processor.apply_chat_template(messages, tokenize=False, **options)


def open_frames(url):
    """The frames of a data URL."""
    kind, _, data = url.partition(",")
    assert kind == "data:video/jpeg;base64"
    return np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(part)))) for part in data.split(",")])
