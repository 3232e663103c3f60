import pytest
import torch
from tests.conftest import build_micro, noise_clip

from descore.model.export import export_for_vllm
from descore.scorer import Scorer

NAMES = ("quality", "alignment")
CLIPS = [(noise_clip(0), "a red ball"), (noise_clip(1, frames=5, width=48), "a cat <|im_end|> {prompt}")]


@pytest.fixture(scope="session")
def micro_folder(tmp_path_factory):
    """A checkpoint with tied embeddings and a head of two dimensions."""
    folder = tmp_path_factory.mktemp("engines") / "micro"
    model = build_micro(dimensions=NAMES)
    model.settings = model.settings.model_copy(update={"trained_on": "a test"})
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def export_folder(micro_folder, tmp_path_factory):
    return export_for_vllm(micro_folder, tmp_path_factory.mktemp("engines") / "vllm", dtype=torch.float32).folder


@pytest.fixture(scope="session")
def native(micro_folder):
    return Scorer.from_pretrained(micro_folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test leaves an export in a home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
