"""An actor that fails where no error of ours is raised, as a fault of a node does. Ray's workers import it by name."""

from descore.rewards.ray_stages import ClipScorer


class FailingScorer(ClipScorer):
    """Fails for a block with a prompt that has the word 'bad'."""

    def __call__(self, block):
        if any("bad" in prompt for prompt in block["prompt"].to_pylist()):
            raise ZeroDivisionError("a fault of the node")
        return super().__call__(block)
