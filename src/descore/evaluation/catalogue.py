"""The public benchmarks, each a row of data: files, columns, label values, where to get it, and published figures.

Layouts were read from dataset cards and from the evaluation code of their authors; a row's notes say what could not be
verified. Published figures name their source."""

from descore.data.schema import OVERALL, ClipColumns, PairColumns
from descore.evaluation.layouts import (
    Benchmark,
    PublishedFigure,
    VideoPaths,
    pair_left_right,
    pair_models,
    parse_conversations,
)
from descore.types import Preference

_DESCORE = "arXiv 2605.05922"
_VIDEOALIGN = "arXiv 2501.13918, leaderboard"
_VISIONREWARD = "arXiv 2412.21059, table 2"


def _accuracies(source: str, label: str, figures: dict[str, tuple[float, float]]) -> tuple[PublishedFigure, ...]:
    """Published pair accuracies of several models: with ties, without."""
    both = (
        (
            PublishedFigure(model=model, label=label, figure="with_ties", value=with_ties, source=source),
            PublishedFigure(model=model, label=label, figure="accuracy", value=without, source=source),
        )
        for model, (with_ties, without) in figures.items()
    )
    return tuple(figure for pair in both for figure in pair)


_VIDEOGEN_REWARDBENCH_FIGURES = (
    *_accuracies(
        _DESCORE,
        "TA",
        {
            "VideoScore": (0.372, 0.503),
            "VideoAlign": (0.538, 0.722),
            "VisionReward": (0.465, 0.611),
            "UnifiedReward": (0.303, 0.564),
            "UnifiedReward-Think": (0.428, 0.582),
            "VideoScore2": (0.301, 0.497),
            "DeScore": (0.568, 0.768),
        },
    ),
    *_accuracies(
        _VIDEOALIGN,
        "VQ",
        {
            "VideoScore": (0.4741, 0.4772),
            "LiFT": (0.4753, 0.5597),
            "VisionReward": (0.4743, 0.5903),
            "VideoAlign": (0.5968, 0.7566),
        },
    ),
    *_accuracies(
        _VIDEOALIGN,
        "MQ",
        {
            "VideoScore": (0.5905, 0.5109),
            "LiFT": (0.5904, 0.5491),
            "VisionReward": (0.5903, 0.6098),
            "VideoAlign": (0.6603, 0.7470),
        },
    ),
    *_accuracies(
        _VIDEOALIGN,
        OVERALL,
        {
            "VideoScore": (0.4180, 0.5022),
            "LiFT": (0.3908, 0.5726),
            "VisionReward": (0.5677, 0.6759),
            "VideoAlign": (0.6126, 0.7359),
        },
    ),
)

_GENAI_BENCH_FIGURES = _accuracies(
    _DESCORE,
    OVERALL,
    {
        "VideoScore": (0.490, 0.720),
        "VideoAlign": (0.494, 0.728),
        "VisionReward": (0.525, 0.724),
        "UnifiedReward": (0.458, 0.686),
        "UnifiedReward-Think": (0.548, 0.709),
        "VideoScore2": (0.391, 0.616),
        "DeScore": (0.504, 0.765),
    },
)

_MJ_BENCH_VIDEO_FIGURES = (
    PublishedFigure(
        model="MJ-VIDEO", label=OVERALL, figure="accuracy", value=0.6875, source="arXiv 2502.01719v3, table 2"
    ),
)

_MONETBENCH_FIGURES = _accuracies(
    _VISIONREWARD,
    OVERALL,
    {
        "ImageReward": (0.558, 0.584),
        "PickScore": (0.577, 0.616),
        "HPSv2": (0.593, 0.625),
        "MPS": (0.558, 0.589),
        "GPT-4o": (0.457, 0.483),
        "Gemini": (0.522, 0.568),
        "VQAScore": (0.561, 0.595),
        "VideoScore": (0.491, 0.549),
        "VisionReward": (0.640, 0.721),
    },
)

_VIDEOSCORE_BENCH_FIGURES = (
    PublishedFigure(
        model="VideoScore", label="mean of the labels", figure="spearman", value=0.771, source="arXiv 2406.15252"
    ),
)

A_B_SAME: dict[str, Preference] = {"A": "a", "B": "b", "same": "tie"}
"""The values of VideoAlign's and DeScore's preferences."""

_FIVE = (
    "visual quality",
    "temporal consistency",
    "dynamic degree",
    "text-to-video alignment",
    "factual consistency",
)


VIDEOGEN_REWARDBENCH = Benchmark(
    name="videogen-rewardbench",
    title="VideoGen-RewardBench",
    kind="pairs",
    size="26,500 pairs of clips by 12 text-to-video models",
    table="videogen-rewardbench.csv",
    columns=PairColumns(
        video_a="path_A",
        video_b="path_B",
        source_a="A_model",
        source_b="B_model",
        preference={"VQ": "VQ", "MQ": "MQ", "TA": "TA", OVERALL: "Overall"},
        values=A_B_SAME,
    ),
    video_paths=VideoPaths(),
    published=_VIDEOGEN_REWARDBENCH_FIGURES,
    licence="Apache-2.0",
    how_to_get="get videogen-rewardbench.csv and videos.zip (13.4 GB) from huggingface.co/datasets/KlingTeam/"
    "VideoGen-RewardBench and unpack the zip beside the table, so that videos/kling1.5/... lies there",
    notes="VQ visual quality, MQ motion quality, TA text alignment. arXiv 2605.05922 reports TA.",
)

GENAI_BENCH = Benchmark(
    name="genai-bench-video",
    title="GenAI-Bench, video generation",
    kind="pairs",
    size="1,900 votes on clips of 2024's open models",
    table="video_generation/test-00000-of-00001.parquet",
    columns=PairColumns(
        video_a="left_video",
        video_b="right_video",
        source_a="left_model",
        source_b="right_model",
        preference={OVERALL: "vote_type"},
        values={"leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "tie"},
    ),
    video_paths=VideoPaths(folder="videos", after="/main/"),
    published=_GENAI_BENCH_FIGURES,
    licence="CC BY 4.0 (dataset card; an earlier version said MIT)",
    how_to_get="get video_generation/test-00000-of-00001.parquet from huggingface.co/datasets/TIGER-Lab/GenAI-Bench,"
    " and huggingface.co/datasets/tianleliphoebe/genai-arena-video-mp4 into videos/ beside video_generation/",
    notes="The table holds addresses; what follows '/main/' in one is the path below videos/. The smaller file test_v1"
    " (1,069 votes) has the same columns.",
)

MJ_BENCH_VIDEO = Benchmark(
    name="mj-bench-video",
    title="MJ-Bench-Video, test split",
    kind="pairs",
    size="some 1,000 pairs, judged for five aspects",
    table="test.json",
    columns=PairColumns(
        prompt="caption",
        video_a="video_0_path",
        video_b="video_1_path",
        preference={
            OVERALL: "overall_preference",
            "alignment": "category_preference.Alignment",
            "safety": "category_preference.Safety",
            "fineness": "category_preference.Fineness",
            "coherence": "category_preference.Coherence & Consistency",
            "bias": "category_preference.Bias",
        },
        values={"Video 1 better": "a", "Video 2 better": "b", "Same": "tie", "Hard to judge": None},
    ),
    video_paths=VideoPaths(folder="videos"),
    published=_MJ_BENCH_VIDEO_FIGURES,
    licence="MIT",
    how_to_get="get test.json and the folder videos/ from huggingface.co/datasets/MJ-Bench/MJ-BENCH-VIDEO,"
    " so that videos/test/0_0.mp4 lies beside the table",
    notes="'Video 1' is video_0. The clips include violent and sexual content. That the clips lie in videos/test/"
    " follows from the authors' evaluation code; how the hub packs them could not be seen.",
)

MONETBENCH = Benchmark(
    name="monetbench",
    title="MonetBench (VisionReward), video",
    kind="pairs",
    size="1,000 pairs of clips by three open models",
    table="monetbench/test-00000-of-00001.parquet",
    columns=PairColumns(
        video_a="video1_path",
        video_b="video2_path",
        preference={OVERALL: "standard_answer"},
        values={"video1": "a", "video2": "b", "tie": "tie"},
    ),
    video_paths=VideoPaths(),
    published=_MONETBENCH_FIGURES,
    licence="Apache-2.0",
    how_to_get="get monetbench/test-00000-of-00001.parquet and the videos from huggingface.co/datasets/zai-org/"
    "VisionRewardDB-Video, so that the paths in video1_path and video2_path lie beside monetbench/",
    notes="video1_path, video2_path and standard_answer, and its values, are as VideoScore2's evaluation code reads"
    " them. Not verified: the name of the column with the prompt ('prompt' is expected), and how videos are packed.",
)

VIDEOPHY2 = Benchmark(
    name="videophy2",
    title="VideoPhy-2, test split",
    kind="ratings",
    size="3,400 rated clips of actions",
    table="videophy2_test.csv",
    columns=ClipColumns(
        prompt="caption",
        video="video_url",
        ratings={"semantic adherence": "sa", "physical commonsense": "pc"},
        source="model_name",
        aspect="category",
    ),
    video_paths=VideoPaths(folder="videos"),
    least_difference=1.0,
    licence="MIT",
    how_to_get="get videophy2_test.csv from huggingface.co/datasets/videophysics/videophy2_test; put the addresses of"
    " its column video_url into urls.txt and run wget -x -nH -P videos -i urls.txt beside it",
    notes="Ratings are 1 to 5. Pairs are made within a caption; equal ratings are ties. A clip's name is its address"
    " without the host, as wget stores it. The column model_name is read where it is there; the card does not list it.",
)

FETV = Benchmark(
    name="fetv",
    title="FETV, a selection",
    kind="ratings",
    size="76 clips of four text-to-video models for 18 prompts",
    table="ratings.csv",
    columns=ClipColumns(
        ratings={label: label for label in ("spatial_quality", "temporal_quality", "alignment")},
        source="generator",
        aspect="aspect",
    ),
    video_paths=VideoPaths(),
    licence="CC BY 4.0, FETV (Liu et al., arXiv 2311.01813)",
    how_to_get="a folder with ratings.csv (video, prompt, generator, aspect, spatial_quality, temporal_quality,"
    " alignment) and the clips that it names; made of the clips and ratings of arXiv 2311.01813",
    notes="Means of three raters, 1 to 5; a prompt was rated for quality or for alignment. With 40 to 55 decided pairs"
    " a label, an accuracy is known to about 13 points.",
)

VIDEOALIGN = Benchmark(
    name="videoalign",
    title="VideoAlign's example pairs",
    kind="pairs",
    size="3 pairs",
    table="pairs.csv",
    columns=PairColumns(
        video_a="path_A",
        video_b="path_B",
        preference={"VQ": "VQ", "MQ": "MQ", "TA": "TA"},
        values=A_B_SAME,
    ),
    video_paths=VideoPaths(),
    licence="MIT, VideoAlign (Kuaishou)",
    how_to_get="a folder with pairs.csv (path_A, path_B, prompt, VQ, MQ, TA) and the six clips of the examples at"
    " github.com/KlingAIResearch/VideoAlign",
    notes="An example, not a measurement: three pairs.",
)

_VIDEOSCORE_NOTES = (
    "Videos are folders of frames without times; 8 frames a second are assumed, which could not be verified."
)


def _how_to_get_videoscore(part: str) -> str:
    return (
        f"get {part}/test-00000-of-00001.parquet and {part}/frames_{part}_test.zip from huggingface.co/datasets/"
        f"TIGER-Lab/VideoScore-Bench and unpack the zip in {part}/: {part}/frames_{part}/ID/ holds a video's frames"
    )


VIDEOSCORE_BENCH = Benchmark(
    name="videoscore-bench",
    title="VideoScore-Bench: VideoFeedback, test split",
    kind="ratings",
    size="760 rated clips",
    table="video_feedback/test-00000-of-00001.parquet",
    reads=("id", "conversations"),
    reshape=parse_conversations,
    columns=ClipColumns(video="id", ratings={label: f"answers.{index}" for index, label in enumerate(_FIVE)}),
    video_paths=VideoPaths(folder="video_feedback/frames_video_feedback"),
    frames_per_second=8.0,
    least_difference=1.0,
    published=_VIDEOSCORE_BENCH_FIGURES,
    licence="Apache-2.0",
    how_to_get=_how_to_get_videoscore("video_feedback"),
    notes=f"Ratings are 1 to 4; few prompts have two clips, so read the correlations. {_VIDEOSCORE_NOTES}",
)

VIDEOSCORE_CRAFTER = Benchmark(
    name="videoscore-bench-crafter",
    title="VideoScore-Bench: EvalCrafter",
    kind="ratings",
    size="2,500 rated clips",
    table="eval_crafter/test-00000-of-00001.parquet",
    reads=("id", "conversations", "score_list"),
    reshape=parse_conversations,
    columns=ClipColumns(
        video="id",
        ratings={_FIVE[index]: f"score_list.{index}" for index in (0, 1, 3)},
        unrated=-1.0,
    ),
    video_paths=VideoPaths(folder="eval_crafter/frames_eval_crafter"),
    frames_per_second=8.0,
    licence="Apache-2.0",
    how_to_get=_how_to_get_videoscore("eval_crafter"),
    notes=f"Ratings are 0 to 1, for three of the five aspects; -1 is no rating. {_VIDEOSCORE_NOTES}",
)

VIDEOSCORE_GENAI = Benchmark(
    name="videoscore-bench-genai",
    title="VideoScore-Bench: GenAI-Bench",
    kind="pairs",
    size="1,069 votes",
    table="genaibench/test-00000-of-00001.parquet",
    reads=("id", "conversations", "preference"),
    reshape=pair_left_right,
    columns=PairColumns(preference={OVERALL: "choice"}),
    video_paths=VideoPaths(folder="genaibench/frames_genaibench"),
    frames_per_second=8.0,
    licence="Apache-2.0",
    how_to_get=_how_to_get_videoscore("genaibench"),
    notes=f"The votes of GenAI-Bench's first version, with frames in place of films. {_VIDEOSCORE_NOTES}",
)

_VBENCH = ("technical_quality", "subject_consistency", "dynamics_degree", "motion_smoothness", "overall_consistency")

VIDEOSCORE_VBENCH = Benchmark(
    name="videoscore-bench-vbench",
    title="VideoScore-Bench: VBench",
    kind="pairs",
    size="2,000 clips of four models, every two of a prompt compared",
    table="vbench/test-00000-of-00001.parquet",
    reads=("id", "conversations", "preference"),
    reshape=pair_models,
    columns=PairColumns(
        source_a="source_a",
        source_b="source_b",
        preference={aspect: f"choice.{aspect}" for aspect in _VBENCH},
    ),
    video_paths=VideoPaths(folder="vbench/frames_vbench"),
    frames_per_second=8.0,
    licence="Apache-2.0",
    how_to_get=_how_to_get_videoscore("vbench"),
    notes=f"Each pair is judged for one aspect only. {_VIDEOSCORE_NOTES}",
)

PUBLIC = (
    VIDEOGEN_REWARDBENCH,
    GENAI_BENCH,
    MJ_BENCH_VIDEO,
    VIDEOSCORE_BENCH,
    VIDEOSCORE_CRAFTER,
    VIDEOSCORE_GENAI,
    VIDEOSCORE_VBENCH,
    MONETBENCH,
    VIDEOPHY2,
    FETV,
    VIDEOALIGN,
)
