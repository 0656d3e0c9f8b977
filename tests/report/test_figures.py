import pytest

from diffai_stream.report.figures import aligned, count, escaped, number, percent, plural, seconds, shape, size, value


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (number(None), "n/a"),
        (number(float("nan")), "n/a"),
        (number(1234567), "1,234,567"),
        (number(0.00004894), "4.89e-05"),
        (aligned(0.05), "0.0500"),
        (aligned(417.0), "417"),
        (aligned(0.0), "0"),
        (percent(1.0), "100%"),
        (percent(0.0), "0%"),
        (percent(0.99999), ">99.9%"),
        (percent(1e-9), "<0.1%"),
        (percent(0.42), "42.0%"),
        (percent(None), "n/a"),
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(999_950), "1 MB"),
        (size(13_476_000_000), "13.5 GB"),
        (size(2.5e18), "2500 PB"),
        (count(512), "512"),
        (count(6_738_415_616), "6.74B"),
        (seconds(0.416), "0.42 s"),
        (seconds(59.4), "59.4 s"),
        (seconds(185), "3 min 05 s"),
        (seconds(7630), "2 h 07 min"),
        (plural(1, "tensor"), "1 tensor"),
        (plural(1024, "tensor"), "1,024 tensors"),
        (shape([], "x"), "scalar"),
        (shape([2, 3], "x"), "2x3"),
        (value({"a": [1.5, None, True]}, "..."), "{a=[1.5, n/a, yes]}"),
        (value([1, 2, 3, 4, 5], "..."), "[1, 2, 3, 4, ... 1 more]"),
        (escaped("plain.weight"), "plain.weight"),
        (escaped("a\x1b[0m\n\u202e\udcff"), r"a\x1b[0m\n\u202e\udcff"),
    ],
)
def test_figures(found, expected):
    assert found == expected
