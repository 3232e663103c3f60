"""Each row of the benchmark table loads a fixture of its true layout, and a gold scorer is always right on it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from descore.data.tables import read_rows
from descore.errors import ConfigError, DataError, VideoError
from descore.evaluation.benchmarks import BENCHMARKS, Judgements, find_benchmark, load
from descore.evaluation.layouts import VideoPaths
from descore.rubric import overall_of
from descore.stats.agreement import accuracy_without_ties
from descore.types import PREFERENCE_SIGN, Clip, RatedClip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

FIXTURES = Path(__file__).parent / "fixtures"
ON_DISK = [name for name, row in BENCHMARKS.items() if not row.drawn]
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The fixtures as their benchmarks are unpacked: what is Parquet there is kept here as JSON Lines, for people."""
    folder = tmp_path_factory.mktemp("benchmarks")
    shutil.copytree(FIXTURES, folder, dirs_exist_ok=True)
    for name in ON_DISK:
        table = folder / name / BENCHMARKS[name].table
        if table.suffix == ".parquet":
            rows = [row for _, row in read_rows(table.with_suffix(".jsonl"))]
            pq.write_table(pa.Table.from_pylist(rows), table)
    return folder


def loaded(name, roots, **options) -> Judgements:
    return load(BENCHMARKS[name], root=None if BENCHMARKS[name].drawn else roots / name, **options)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_gold_rewards_are_always_right_and_negated_always_wrong(name, roots):
    judgements = loaded(name, roots, limit=4 if BENCHMARKS[name].drawn else None)
    assert judgements.pairs
    for label in BENCHMARKS[name].labels:
        judged = [pair for pair in judgements.pairs if label in pair.preference]
        preference_B = np.array([PREFERENCE_SIGN[pair.preference[label]] for pair in judged])
        group_B = np.array([pair.group for pair in judged])
        assert preference_B.any(), f"{label}: the fixture decides no pair"
        for margin_B, expected in ((preference_B, 1.0), (-preference_B, 0.0)):
            figure = accuracy_without_ties(margin_B.astype(float), preference_B, group_B, resamples=20)
            assert figure.value == expected


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_clip_of_a_pair_is_there_once(name, roots):
    judgements = loaded(name, roots, limit=4 if BENCHMARKS[name].drawn else None)
    clips = [(clip.video, clip.prompt) for clip in judgements.clips]
    assert len(clips) == len(set(clips))
    of_pairs = {(video, pair.prompt) for pair in judgements.pairs for video in (pair.video_a, pair.video_b)}
    assert of_pairs <= set(clips)
    labels = {label for pair in judgements.pairs for label in pair.preference}
    assert labels <= set(BENCHMARKS[name].labels)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_row_has_title_size_notes_and_sourced_figures(name):
    row = BENCHMARKS[name]
    assert row.name == name
    assert row.title
    assert row.size
    assert row.how_to_get
    assert row.notes
    assert row.drawn or row.licence
    assert all(0 < figure.value < 1 and figure.source for figure in row.published)
    assert {figure.label for figure in row.published} <= {*row.labels, "mean of the labels"}
    each = [(figure.model, figure.label, figure.figure) for figure in row.published]
    assert len(each) == len(set(each))


# What each fixture must become: the first pair (or clip) in full, and how many there are of each.
FIRST_PAIRS = {
    "videogen-rewardbench": (
        "videos/kling1.5/kling1.5_00103.mp4", "videos/minimax/minimax_00103.mp4", "kling1.5", "minimax",
        {"VQ": "a", "MQ": "a", "TA": "a", "overall": "a"}, 5, 3,
    ),
    "genai-bench-video": ("videos/lavie/01.mp4", "videos/opensora/01.mp4", "LaVie", "OpenSora", {"overall": "a"}, 6, 4),
    "mj-bench-video": (
        "videos/test/0_0.mp4", "videos/test/0_1.mp4", None, None,
        {"overall": "a", "alignment": "b", "safety": "a", "fineness": "a", "coherence": "a", "bias": "b"}, 8, 4,
    ),
    "monetbench": ("videos/0_a.mp4", "videos/0_b.mp4", None, None, {"overall": "a"}, 6, 3),
    "videoalign": (
        "clips/example_1_A.mp4", "clips/example_1_B.mp4", None, None, {"VQ": "b", "MQ": "b", "TA": "a"}, 6, 3,
    ),
    "videophy2": (
        "videos/bucket/wan/A_ball is_thrown_0.mp4", "videos/bucket/cog/A_ball is_thrown_0.mp4", None, None,
        {"semantic adherence": "a", "physical commonsense": "tie"}, 4, 3,
    ),
    "fetv": (
        "clips/a_cogvideo.gif", "clips/a_zeroscope.gif", "cogvideo", "zeroscope",
        {"spatial_quality": "b", "temporal_quality": "a"}, 5, 4,
    ),
    "videoscore-bench": (
        "video_feedback/frames_video_feedback/7001486", "video_feedback/frames_video_feedback/0001611", None, None,
        {"visual quality": "b", "temporal consistency": "a", "dynamic degree": "a", "text-to-video alignment": "a",
         "factual consistency": "b"}, 3, 1,
    ),
    "videoscore-bench-crafter": (
        "eval_crafter/frames_eval_crafter/pika_0000", "eval_crafter/frames_eval_crafter/gen2_0000", None, None,
        {"visual quality": "b", "temporal consistency": "a", "text-to-video alignment": "b"}, 3, 1,
    ),
    "videoscore-bench-genai": (
        "genaibench/frames_genaibench/0000_left", "genaibench/frames_genaibench/0000_right", None, None,
        {"overall": "a"}, 6, 3,
    ),
    "videoscore-bench-vbench": (
        "vbench/frames_vbench/technical_quality_0_cogvideo", "vbench/frames_vbench/technical_quality_0_videocraft",
        "cogvideo", "videocraft", {"technical_quality": "b"}, 15, 15,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_DISK)
def test_a_fixture_becomes_the_expected_judgements(name, roots):
    judgements = loaded(name, roots)
    first = judgements.pairs[0]
    result = (first.video_a, first.video_b, first.source_a, first.source_b, dict(first.preference))
    assert (*result, len(judgements.clips), len(judgements.pairs)) == FIRST_PAIRS[name]
    assert first.group == first.prompt


def test_a_vote_that_people_could_not_give_is_no_label(roots):
    assert "overall" not in loaded("mj-bench-video", roots).pairs[3].preference


def test_rated_clips_keep_ratings_source_and_aspect(roots):
    first = loaded("fetv", roots).clips[0]
    assert first == RatedClip(
        prompt="people are dancing",
        video="clips/a_cogvideo.gif",
        group="people are dancing",
        ratings={"spatial_quality": 3.0, "temporal_quality": 2.0},
        source="cogvideo",
        aspect="Actions",
    )
    assert "dynamic degree" not in loaded("videoscore-bench-crafter", roots).clips[0].ratings
    assert loaded("videoscore-bench", roots).clips[0].prompt == 'crowd at a "rock" concert'


def test_a_limit_takes_the_first(roots):
    assert [pair.video_b for pair in loaded("videogen-rewardbench", roots, limit=2).pairs] == [
        "videos/minimax/minimax_00103.mp4",
        "videos/gen3/gen3_00103.mp4",
    ]
    assert len(loaded("fetv", roots, limit=2).clips) == 2
    with pytest.raises(ConfigError, match="limit is 0; expected at least 1"):
        loaded("fetv", roots, limit=0)


def test_drawn_pairs_are_true_and_open_as_clips():
    judgements = load(BENCHMARKS["drawn"], limit=3)
    assert [clip.video for clip in judgements.clips[:3]] == ["drawn:0/a", "drawn:0/b", "drawn:1/a"]
    rated = {clip.video: clip for clip in judgements.clips}
    for pair in judgements.pairs:
        a, b = rated[pair.video_a].ratings["overall"], rated[pair.video_b].ratings["overall"]
        assert pair.preference["overall"] == ("tie" if a == b else "a" if a > b else "b")
    assert all(clip.ratings["overall"] == overall_of(dict(clip.marks)) for clip in judgements.clips)
    clip = judgements.open("drawn:2/b")
    assert isinstance(clip, Clip)
    assert (clip.frames == load(BENCHMARKS["drawn"], limit=1).open("drawn:2/b").frames).all()
    for wrong in ("drawn:x/a", "drawn:1/c", "clip.mp4"):
        with pytest.raises(ConfigError, match="no clip of drawn; expected drawn:NUMBER/a or /b"):
            judgements.open(wrong)


def test_an_unknown_name_lists_the_known_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown benchmark 'fetf'; did you mean fetv\\? Known: drawn, "):
        find_benchmark("fetf")
    with pytest.raises(ConfigError, match="unknown benchmark 'qqqq'\\. Known: "):
        find_benchmark("qqqq")
    assert find_benchmark("fetv") is BENCHMARKS["fetv"]


def test_missing_files_are_named_with_where_to_get_them(tmp_path):
    with pytest.raises(
        ConfigError, match=r"fetv: where is it\? Name its folder with --root; a folder with ratings.csv"
    ):
        load(BENCHMARKS["fetv"])
    with pytest.raises(
        ConfigError, match=r"monetbench: no monetbench/test-00000-of-00001.parquet in .*; get monetbench/"
    ):
        load(BENCHMARKS["monetbench"], root=tmp_path)


def test_a_table_of_another_layout_names_the_missing_column(tmp_path):
    (tmp_path / "pairs.csv").write_text("path_a,path_B,prompt,VQ,TA\nx,y,p,A,B\n")
    with pytest.raises(DataError, match="no column 'path_A' \\(is it 'path_a'\\?\\), 'MQ'"):
        load(BENCHMARKS["videoalign"], root=tmp_path)


def test_a_missing_video_is_no_fault_before_it_is_opened(roots):
    judgements = loaded("videoalign", roots)
    path = judgements.open(judgements.clips[0].video)
    assert path == str(roots / "videoalign" / "clips" / "example_1_A.mp4")
    with pytest.raises(VideoError, match="no such file"):
        read_clip(path, sampling=VideoSampling())


def test_a_folder_of_frames_opens_as_a_film(roots):
    judgements = loaded("videoscore-bench", roots)
    name = judgements.clips[0].video
    with pytest.raises(VideoError, match="no such file"):
        read_clip(judgements.open(name), sampling=VideoSampling())
    folder = roots / "videoscore-bench" / name
    folder.mkdir(parents=True)
    with pytest.raises(VideoError, match="no frames"):
        judgements.open(name)
    for number in (1, 2, 10):
        Image.new("RGB", (64, 64), (20 * number, 0, 0)).save(folder / f"x_{number}.png")
    clip = read_clip(judgements.open(name), sampling=VideoSampling(min_pixels=64 * 64, fps=8, min_frames=3))
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [20, 40, 200]
    assert clip.source_fps == 8


def test_a_table_of_pairs_of_ones_own(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text(
        "prompt,video_a,video_b,preference,rating_a,rating_b,source\n"
        "p,x.mp4,y.mp4,a,4,2,gen\n"
        "p,x.mp4,z.mp4,tie,3,3,gen\n"
        "p,x.mp4,http://host/z.mp4,tie,,,gen\n"
    )
    benchmark = find_benchmark(str(table))
    assert (benchmark.name, benchmark.kind, benchmark.labels) == ("mine", "pairs", ("overall",))
    judgements = load(benchmark)
    assert [clip.video for clip in judgements.clips] == ["x.mp4", "y.mp4", "z.mp4", "http://host/z.mp4"]
    assert judgements.clips[0].ratings == {"overall": 3.5}  # rated 4 in one row and 3 in the other
    assert judgements.clips[0].source == "gen"
    assert judgements.open("x.mp4") == str(tmp_path / "x.mp4")
    assert judgements.open("http://host/z.mp4") == "http://host/z.mp4"


def test_a_table_of_ratings_of_ones_own(tmp_path):
    table = tmp_path / "mine.jsonl"
    rated = [("x", 3), ("y", 5), ("x", 5), ("z", 4)]
    table.write_text("\n".join(json.dumps({"prompt": "p", "video": v, "rating.VQ": n}) for v, n in rated))
    judgements = load(find_benchmark(str(table)))
    assert {clip.video: clip.ratings["VQ"] for clip in judgements.clips} == {"x": 4, "y": 5, "z": 4}
    assert [(p.video_a, p.video_b, p.preference["VQ"]) for p in judgements.pairs] == [
        ("x", "y", "b"), ("x", "z", "tie"), ("y", "z", "a"),
    ]  # fmt: skip


def test_a_table_that_tells_neither_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="found columns a, b; expected prompt, video_a, video_b, preference for pairs"):
        find_benchmark(str(tmp_path / "t.csv"))
    with pytest.raises(ConfigError, match="no such file"):
        find_benchmark(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize(
    ("cell", "place", "name"),
    [
        ("videos/x.mp4", VideoPaths(), "videos/x.mp4"),
        ("x.mp4", VideoPaths(folder="v"), "v/x.mp4"),
        ("https://h/a/blob/main/d/x%20y.mp4?download=true", VideoPaths(folder="v", after="/main/"), "v/d/x y.mp4"),
        ("https://h/a/resolve/main/d/x.mp4", VideoPaths(folder="v", after="/main/"), "v/d/x.mp4"),
        ("https://h/a/x.mp4", VideoPaths(folder="v"), "v/a/x.mp4"),
        ("/x.mp4", VideoPaths(folder="v"), "v/x.mp4"),
    ],
)
def test_where_a_video_lies(cell, place, name):
    assert place.name_of(cell) == name


def broken(folder, name, change):
    """A copy of a VideoScore fixture whose rows were changed."""
    source = BENCHMARKS[name]
    rows = change([row for _, row in read_rows((FIXTURES / name / source.table).with_suffix(".jsonl"))])
    (folder / source.table).parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / source.table)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("videoscore-bench-genai", lambda rows: rows[:3], "parquet:3: id is '0001_left' and its other side is missing"),
        ("videoscore-bench-genai", lambda rows: [rows[0], rows[0]], ":2: id '0000_left' is there twice"),
        ("videoscore-bench-genai", lambda rows: [{**rows[0], "id": "7"}], ":1: id is '7'; expected NUMBER_left or"),
        (
            "videoscore-bench-genai",
            lambda rows: [{**row, "preference": "left"} for row in rows],
            ":2: preference is 'left' and 'left'; expected two numbers",
        ),
        ("videoscore-bench", lambda rows: [{**rows[0], "conversations": []}], ":1: no text prompt is"),
        ("videoscore-bench", lambda rows: [{"id": row["id"]} for row in rows], "no column 'conversations'; found id"),
    ],
)
def test_a_table_that_is_not_the_benchmark_is_refused(tmp_path, name, change, message):
    with pytest.raises(DataError, match=message):
        load(BENCHMARKS[name], root=broken(tmp_path, name, change))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared clips are not here")
@pytest.mark.parametrize(
    ("name", "clips", "decided"),
    [
        ("fetv", 76, {"spatial_quality": 40, "temporal_quality": 45, "alignment": 55}),
        ("videoalign", 6, {"VQ": 2, "MQ": 1, "TA": 2}),
    ],
)
def test_the_shared_clips(name, clips, decided):
    judgements = load(BENCHMARKS[name], root=SHARED / name)
    assert len(judgements.clips) == clips
    counted = {label: sum(p.preference.get(label, "tie") != "tie" for p in judgements.pairs) for label in decided}
    assert counted == decided
    assert all(Path(judgements.open(clip.video)).is_file() for clip in judgements.clips)
