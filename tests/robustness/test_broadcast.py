"""Interlaced and HDR footage comes out as progressive SDR pictures."""

import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from descore.video.pictures import tone_mapped
from descore.video.reader import read_clip
from tests.video.films import SMALL, write_film


def level(signal, transfer):
    return tone_mapped(np.full((1, 1, 3), round(65535 * signal), np.uint16), transfer=transfer)[0, 0].tolist()


def test_curves():
    # PQ .5807 is 203 cd/m2, .7518 is 1000; .4401 is 50, which is below the knee: (50 / 203) ** (1 / 2.4) * 255 = 142
    assert level(0, ColorTrc.SMPTE2084) == [0, 0, 0]
    assert level(0.7518, ColorTrc.SMPTE2084) == level(1, ColorTrc.SMPTE2084) == [255, 255, 255]
    assert level(0.4401, ColorTrc.SMPTE2084) == pytest.approx([142] * 3, abs=1)
    # HLG .75 is 203 cd/m2 (ITU-R BT.2408), 1 is 1000
    assert level(0.75, ColorTrc.ARIB_STD_B67) == pytest.approx(level(0.5807, ColorTrc.SMPTE2084), abs=1)
    assert level(1, ColorTrc.ARIB_STD_B67) == [255, 255, 255]
    greys = [level(step / 100, ColorTrc.SMPTE2084)[0] for step in range(101)]
    assert greys == sorted(greys)


@pytest.mark.parametrize("transfer", [ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67])
def test_hdr_is_tone_mapped(tmp_path, transfer):
    frames = [np.full((48, 64, 3), value, np.uint8) for value in (60, 120, 180, 240)]
    tags = {"color_trc": int(transfer), "color_primaries": int(ColorPrimaries.BT2020), "colorspace": 9}
    how = {"codec": "libx265", "pixels": "yuv420p10le", "x265-params": "log-level=none:lossless=1"}
    clip = read_clip(write_film(tmp_path / "film.mp4", frames, tags=tags, **how), sampling=SMALL)
    for picture, value in zip(clip.frames, (60, 120, 180, 240), strict=True):
        right = level(value / 255, transfer)
        assert np.abs(picture.mean(axis=(0, 1)) - right).max() < 4


@pytest.mark.parametrize("tags", [{}, {"colorspace": 1, "color_primaries": 1, "color_trc": 1}])
def test_interlaced_footage_has_no_combs(tmp_path, tags):
    fields = np.zeros((64, 64, 3), np.uint8)
    fields[0::2, :32] = fields[1::2, 32:] = (200, 120, 60)  # a bar that moved between the two fields
    how = {"crf": 1, "pixels": "yuv444p", "tags": tags}
    flat = write_film(tmp_path / "flat.mp4", [np.full_like(fields, (200, 120, 60))], **how)
    right = read_clip(flat, sampling=SMALL).frames[0, 0, 0].astype(int)  # progressive, with the same colour tags
    film = write_film(tmp_path / "film.mp4", [fields] * 4, **how, **{"x264-params": "tff=1"})
    picture = read_clip(film, sampling=SMALL).frames[0]
    halves = picture[8:-8, 4:28].astype(int), picture[8:-8, 36:60].astype(int)
    dark, bright = sorted(halves, key=np.mean)  # one field is kept: the bar is in one half alone, without gaps
    assert dark.max() <= 6
    assert np.abs(bright - right).max() <= 2
