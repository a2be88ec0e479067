from comfy_revelio.render import feature_table
from comfy_revelio.trace import FeatureScore


def score(feature, label="", share=0.125):
    return FeatureScore(feature=feature, label=label, score=1.0, peak=12.3456, mean=0.0321, share=share)


def test_columns_line_up():
    lines = feature_table([score(1203, "glasses"), score(7), score(22, "dark hair", 1.0)]).splitlines()
    assert len(lines) == 5
    assert len({line.index("12.3") for line in lines[2:]}) == 1
    assert len({len(line) for line in lines}) == 1
    assert len({line.count("|") for line in lines}) == 1  # a Markdown table too
    assert set(lines[1]) == set("| -:")
    assert "#1203" in lines[2] and "glasses" in lines[2] and "12.5 %" in lines[2]
    assert "100.0 %" in lines[4]


def test_no_label_column_without_labels():
    assert "label" not in feature_table([score(1)])


def test_nothing_active_is_said():
    assert feature_table([]) == "No feature is active here."
