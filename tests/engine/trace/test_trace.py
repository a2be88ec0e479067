"""The questions that a trace answers, against the dense codes of its frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.trace import RunRecorder, Trace

MIDDLE, UP = "middle_block.1", "output_blocks.1.1"


def _dense(trace: Trace, hook_point: str, role: str = "cond") -> torch.Tensor:
    """[steps, B, T, n] of the first evaluations."""
    frames = [f for f in trace.frames if (f.hook_point, f.role, f.evaluation) == (hook_point, role, 0)]
    return torch.stack([frame.codes.dense() for frame in frames])


def test_what_was_recorded(trace: Trace) -> None:
    assert trace.hook_points == (MIDDLE, UP)
    assert trace.roles(MIDDLE) == ("cond", "uncond")
    assert (trace.batch_size, trace.total_steps, trace.sigmas) == (2, 3, (14.6146, 7.1, 1 / 3, 0.0))
    steps = trace.steps(UP, "uncond")
    assert [(f.step, f.evaluation, f.role, f.grid) for f in steps] == [
        (s, 0, "uncond", (6, 10)) for s in range(3)
    ]
    assert [f.sigma for f in steps] == [14.6146, 7.1, 1 / 3]


@pytest.mark.parametrize(("hook_point", "grid"), [(MIDDLE, (3, 5)), (UP, (6, 10))])
@pytest.mark.parametrize("role", ["cond", "uncond"])
def test_feature_maps_on_grids_that_are_not_square(trace: Trace, hook_point, grid, role) -> None:
    dense = _dense(trace, hook_point, role)
    for feature in range(0, 40, 3):
        for item in (0, 1):
            expected = dense[:, item, :, feature].reshape(3, *grid)
            assert torch.equal(trace.feature_map(hook_point, feature, item=item, role=role), expected)
            assert torch.equal(
                trace.feature_map(hook_point, feature, step=1, item=item, role=role), expected[1]
            )


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("item", [None, 0, 1])
@pytest.mark.parametrize("by", ["peak", "mean", "distinct"])
def test_top_features_rank_as_they_say(trace: Trace, by, item, step) -> None:
    dense = _dense(trace, MIDDLE).double()
    dense = dense if item is None else dense[:, item : item + 1]
    dense = dense if step is None else dense[step : step + 1]
    peak, mean = dense.amax((0, 1, 2)), dense.mean((0, 1, 2))
    score = {"peak": peak, "mean": mean, "distinct": (dense.amax(2) - dense.mean(2)).mean((0, 1))}[by]
    found = trace.top_features(MIDDLE, 10, step=step, item=item, by=by)
    expected = [f for f in score.argsort(descending=True).tolist() if peak[f] > 0][:10]
    assert [f.feature for f in found] == expected
    for entry in found:
        f = entry.feature
        assert entry.label == {3: "glasses", 1: "glasses", 7: "red hair"}.get(f, "")
        assert entry.score == pytest.approx(float(score[f]), abs=1e-5)
        assert entry.peak == pytest.approx(float(peak[f]), abs=1e-5)
        assert entry.mean == pytest.approx(float(mean[f]), abs=1e-5)
        assert entry.share == pytest.approx(float((dense[..., f] > 0).double().mean()), abs=1e-6)


def test_silent_features_are_not_ranked(trace: Trace) -> None:
    everything = trace.top_features(UP, 1000, step=0, item=0)
    assert len(everything) == int((_dense(trace, UP)[0, 0] > 0).any(0).sum()) < 64
    assert trace.top_features(UP, 0) == []


def test_distinct_puts_what_is_everywhere_last() -> None:
    from comfy_revelio.dictionary import Codes
    from comfy_revelio.trace import DictionaryNote, Frame

    indices = torch.tensor([[[0, 1]] * 6])
    values = torch.tensor([[[5.0, 0.0]] * 6])
    values[0, 2, 1] = 2.0
    frame = Frame("m", 0, 0, 1.0, 1.0, "cond", (2, 3), Codes(indices, values, 4))
    trace = Trace((frame,), {"m": DictionaryNote(4, 2)}, 1, (1.0, 0.0))
    assert [f.feature for f in trace.top_features("m", by="peak")] == [0, 1]
    assert [f.feature for f in trace.top_features("m", by="distinct")] == [1, 0]


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda t: t.feature_map("nowhere", 0), r"middle_block\.1, output_blocks"),
        (lambda t: t.roles("nowhere"), r"middle_block\.1, output_blocks"),
        (lambda t: t.feature_map(MIDDLE, 40), "0 to 39"),
        (lambda t: t.feature_map(MIDDLE, -1), "0 to 39"),
        (lambda t: t.feature_map(MIDDLE, 0, step=3), "0, 1, 2"),
        (lambda t: t.feature_map(MIDDLE, 0, item=2), "0 to 1"),
        (lambda t: t.feature_map(MIDDLE, 0, role="cond2"), "cond, uncond"),
        (lambda t: t.top_features(MIDDLE, by="colour"), "peak, mean, distinct"),
        (lambda t: t.top_features(MIDDLE, item=-1), "0 to 1"),
    ],
)
def test_wrong_questions_name_the_right_ones(trace: Trace, ask, word) -> None:
    with pytest.raises(RevelioError, match=word):
        ask(trace)


def test_an_empty_trace_says_so() -> None:
    trace = Trace((), {}, 4, (1.0, 0.0))
    assert (trace.hook_points, trace.batch_size) == ((), 0)
    with pytest.raises(RevelioError, match="none"):
        trace.feature_map(MIDDLE, 0)


def test_a_trace_cannot_be_changed(trace: Trace) -> None:
    with pytest.raises(AttributeError):
        trace.frames = ()  # type: ignore[misc]


def test_joining_keeps_the_words_of_a_prompt(make_dictionary) -> None:
    def of_layer(name: str, words: tuple[str, ...]) -> Trace:
        recorder, sae = RunRecorder(1, ()), make_dictionary()
        recorder.add(name, 0, 0, 0.0, 0.0, "cond", (1, 3), sae.encode(torch.randn(1, 3, 12)))
        return replace(recorder.finish({name: sae}), words=words)

    both = of_layer("layers.2", ("a", "red", "hat")).joined(of_layer("layers.5", ("a", "red", "hat")))
    assert (both.hook_points, both.words) == (("layers.2", "layers.5"), ("a", "red", "hat"))
    with pytest.raises(RevelioError, match="different prompts"):
        both.joined(of_layer("layers.7", ("a", "blue", "hat")))


class TestPlaces:
    """Which recorded place a name or a dictionary means."""

    @pytest.fixture
    def same_size(self, make_dictionary) -> Trace:
        """Three places, one size: one that has another name, and one recorded elsewhere than its SAE says."""
        used = {
            MIDDLE: make_dictionary(hook_point="mid_block.attentions.0"),
            UP: make_dictionary(hook_point=UP),
        }
        used["layers.3"] = make_dictionary(hook_point="layers.2")
        recorder = RunRecorder(1, (1.0, 0.0))
        for name, dictionary in used.items():
            recorder.add(name, 0, 0, 1.0, 999.0, "cond", (2, 3), dictionary.encode(torch.randn(1, 6, 12)))
        return recorder.finish(used, {MIDDLE: ("mid_block.attentions.0",), UP: ("up_blocks.0.attentions.1",)})

    @pytest.mark.parametrize(
        ("said", "places"),
        [
            (MIDDLE, [MIDDLE]),
            ("mid_block.attentions.0", [MIDDLE]),
            ("up_blocks.0.attentions.1", [UP]),
            ("layers.2", ["layers.3"]),
            ("layers.3", []),
            ("layers.9", []),
            ("", []),
        ],
    )
    def test_of_a_dictionary(self, same_size, make_dictionary, tmp_path, said, places) -> None:
        same_size.save(tmp_path / "trace.safetensors")
        for trace in (same_size, Trace.load(tmp_path / "trace.safetensors")):
            assert trace.hook_points_of(make_dictionary(hook_point=said)) == places
            for size in ({"n": 41}, {"d": 13}, {"k": 4}):
                assert trace.hook_points_of(make_dictionary(hook_point=said, **size)) == []

    def test_of_a_trace_that_notes_no_names(self, make_dictionary) -> None:
        from comfy_revelio.trace import DictionaryNote, Frame

        codes = make_dictionary().encode(torch.randn(1, 6, 12))
        frames = tuple(Frame(name, 0, 0, 1.0, 1.0, "cond", (2, 3), codes) for name in (MIDDLE, UP))
        one = Trace(frames[:1], {MIDDLE: DictionaryNote(40, 5)}, 1, (1.0, 0.0))
        two = Trace(frames, {MIDDLE: DictionaryNote(40, 5), UP: DictionaryNote(40, 5)}, 1, (1.0, 0.0))
        assert one.hook_points_of(make_dictionary(hook_point="mid_block.attentions.0")) == [MIDDLE]
        assert two.hook_points_of(make_dictionary(hook_point="mid_block.attentions.0")) == []
        assert two.hook_points_of(make_dictionary(hook_point=UP)) == [UP]

    def test_of_a_name(self, same_size) -> None:
        assert [same_size.place(name) for name in ("", UP, "mid_block.attentions.0")] == [MIDDLE, UP, MIDDLE]
        with pytest.raises(RevelioError, match=r"'layers\.2' was not recorded; recorded are: middle_block"):
            same_size.place("layers.2")


def test_a_video_has_frames(dictionaries, tmp_path) -> None:
    """Tokens lie frame by frame; without a frame the map shows each place at its strongest."""
    name, dictionary = next(iter(dictionaries.items()))
    recorder = RunRecorder(1, (1.0, 0.0))
    x = torch.randn(2, 4 * 3 * 5, dictionary.d_model, generator=torch.Generator().manual_seed(0))
    codes = dictionary.encode(x)
    recorder.add(name, 0, 0, 1.0, 999.0, "cond", (4, 3, 5), codes)
    recorder.finish({name: dictionary}).save(tmp_path / "video.safetensors")
    trace = Trace.load(tmp_path / "video.safetensors")
    assert trace.video_frames(name) == 4
    feature = trace.top_features(name, 1)[0].feature
    dense = codes[1].of(feature).reshape(4, 3, 5)
    for frame in range(4):
        assert torch.equal(trace.feature_map(name, feature, step=0, item=1, frame=frame), dense[frame])
    assert torch.equal(trace.feature_map(name, feature, item=1)[0].abs(), dense.abs().amax(0))
    with pytest.raises(RevelioError, match="frame 4"):
        trace.feature_map(name, feature, frame=4)
    with pytest.raises(RevelioError, match="4 by 3 by 4"):
        recorder.add(name, 0, 0, 1.0, 999.0, "cond", (4, 3, 4), codes)
