"""From runs of (key, count) to figures: moments, ranges and counts of exact distributions, quantiles, distances.

A run lists the keys of one tensor and view by ascending value, so every figure is one walk over a few thousand entries.
`values` maps a key to its value (the pattern's own value, or the lower edge of a key's range); NaN and infinities are
told by their values and left out of all but the counts.
"""

from __future__ import annotations

import math

import numpy as np

from diffai_stream.jit import part
from diffai_stream.statistics.kernels.rows import MAX, MIN, NAN, NEGINF, POSINF, ZERO, clear_view, merge_rows, take_range
from diffai_stream.statistics.kernels.tables import key_of
from diffai_stream.statistics.layout import VIEW_WIDTH


@part
def rank_of(key):
    """Position of a key in the order of values."""
    return key if key < 0x8000 else 0x7FFF - key


@part
def run_moments(keys, counts, values, row, at):
    """Fill a view's eleven columns of `row` from a run: exact counts and range, moments in two float64 passes."""
    clear_view(row, at)
    n, total = 0.0, 0.0
    for i in range(keys.size):
        value, count = values[keys[i]], np.float64(counts[i])
        if value != value:
            row[at + NAN] += count
        elif value == np.inf:
            row[at + POSINF] += count
        elif value == -np.inf:
            row[at + NEGINF] += count
        else:
            n += count
            total += count * value
            row[at + ZERO] += count if value == 0 else 0.0
            take_range(row, at, value, value)
    if n == 0:
        return
    mean = total / n
    m2, m3, m4 = 0.0, 0.0, 0.0
    for i in range(keys.size):
        value, count = values[keys[i]], np.float64(counts[i])
        if np.isfinite(value):
            e = value - mean
            square = e * e
            m2 += count * square
            m3 += count * square * e
            m4 += count * square * square
    row[at], row[at + 1], row[at + 2], row[at + 3], row[at + 4] = n, mean, m2, m3, m4


@part
def moments_of_runs(ends, view, keys, counts, values, rows):
    """run_moments for the view of every segment."""
    for s in range(rows.shape[0]):
        start = ends[s - 1, view] if s else 0
        run_moments(keys[start : ends[s, view]], counts[start : ends[s, view]], values, rows[s], view * VIEW_WIDTH)


@part
def coarsen(ends, view, keys, counts, values, exact, coarse_keys, coarse_counts, coarse_ends):
    """Merge the runs of a view into runs of 1,024 coarse keys; `exact` says that keys are patterns, not float32 keys."""
    at = 0
    for s in range(ends.shape[0]):
        first = at
        for i in range(ends[s - 1, view] if s else 0, ends[s, view]):
            if not np.isfinite(values[keys[i]]):
                continue
            key = key_of(values[keys[i]]) if exact else np.uint64(keys[i])
            coarse = np.uint16(key >> np.uint64(6))
            if at > first and coarse_keys[at - 1] == coarse:
                coarse_counts[at - 1] += counts[i]
            else:
                coarse_keys[at], coarse_counts[at] = coarse, counts[i]
                at += 1
        coarse_ends[s] = at
    return at


@part
def run_quantiles(keys, counts, values, exact, low, high, probabilities, out):
    """Inverted CDF of a run at ascending probabilities; inexact keys give the middle of their range, within [low, high]."""
    total = 0
    for i in range(keys.size):
        total += counts[i] if np.isfinite(values[keys[i]]) else 0
    seen, i = 0, -1
    value = np.nan
    for p in range(probabilities.size):
        target = probabilities[p] * total
        while i + 1 < keys.size and (i < 0 or seen < target):
            i += 1
            if np.isfinite(values[keys[i]]):
                seen += counts[i]
                value = values[keys[i]]
        middle = value if exact else value * (1 + 2.0**-8)
        out[p] = min(max(middle, low), high) if total else np.nan


@part
def quantiles_of_runs(ends, view, keys, counts, values, exact, rows, probabilities, out):
    """run_quantiles for the view of every segment: out[s, p]."""
    at = view * VIEW_WIDTH
    for s in range(rows.shape[0]):
        start, end = ends[s - 1, view] if s else 0, ends[s, view]
        low, high = rows[s, at + MIN], rows[s, at + MAX]
        run_quantiles(keys[start:end], counts[start:end], values, exact, low, high, probabilities, out[s])


@part
def next_atom(keys, counts, values, same, i):
    """(place, value, count, next i) of the next finite atom of a run; place orders atoms of both sides alike."""
    while i < keys.size and not np.isfinite(values[keys[i]]):
        i += 1
    if i == keys.size:
        return np.inf, 0.0, 0, i
    value = values[keys[i]]
    return (value if same else np.float64(rank_of(np.int64(key_of(value + 0.0))))), value, counts[i], i + 1


@part
def entropy_term(p, q):
    """p·log2(p / m) with m the middle of p and q."""
    return p * np.log2(2 * p / (p + q)) if p > 0 else 0.0


@part
def distances(keys_a, counts_a, values_a, keys_b, counts_b, values_b, same, out):
    """out = Kolmogorov-Smirnov distance, Jensen-Shannon distance (base 2, square root), Wasserstein-1 of two runs."""
    total_a, total_b = 0, 0
    for i in range(keys_a.size):
        total_a += counts_a[i] if np.isfinite(values_a[keys_a[i]]) else 0
    for i in range(keys_b.size):
        total_b += counts_b[i] if np.isfinite(values_b[keys_b[i]]) else 0
    out[:] = np.nan
    if total_a == 0 or total_b == 0:
        return
    ks, js, w1, cdf_a, cdf_b, last = 0.0, 0.0, 0.0, 0, 0, 0.0
    pa, va, ca, i = next_atom(keys_a, counts_a, values_a, same, 0)
    pb, vb, cb, j = next_atom(keys_b, counts_b, values_b, same, 0)
    first = True
    while pa < np.inf or pb < np.inf:
        place = min(pa, pb)
        value = va if pa == place else vb
        gap = abs(cdf_a / total_a - cdf_b / total_b)
        if not first:
            w1 += gap * max(value - last, 0.0)
        mass_a, mass_b = 0, 0
        while pa == place and pa < np.inf:
            mass_a += ca
            pa, va, ca, i = next_atom(keys_a, counts_a, values_a, same, i)
        while pb == place and pb < np.inf:
            mass_b += cb
            pb, vb, cb, j = next_atom(keys_b, counts_b, values_b, same, j)
        cdf_a += mass_a
        cdf_b += mass_b
        ks = max(ks, abs(cdf_a / total_a - cdf_b / total_b))
        js += 0.5 * (entropy_term(mass_a / total_a, mass_b / total_b) + entropy_term(mass_b / total_b, mass_a / total_a))
        last, first = value, False
    out[0], out[1], out[2] = ks, np.sqrt(max(js, 0.0)), w1


@part
def distances_of_runs(ends, keys_a, counts_a, values_a, keys_b, counts_b, values_b, same, out):
    """distances of old and new of every segment: out[s, 0:3]."""
    for s in range(ends.shape[0]):
        a, b = (ends[s - 1, 0], ends[s - 1, 1]) if s else (0, 0)
        c, d = ends[s, 0], ends[s, 1]
        distances(keys_a[a:c], counts_a[a:c], values_a, keys_b[b:d], counts_b[b:d], values_b, same, out[s])


@part
def law_cdf(x, sigma, uniform):
    """CDF at x of the centred normal (or uniform) law with standard deviation sigma."""
    if uniform:
        return min(max(0.5 + x / (2 * np.sqrt(3.0) * sigma), 0.0), 1.0)
    return 0.5 * (1.0 + math.erf(x / (sigma * np.sqrt(2.0))))


@part
def law_distance(keys, counts, values, exact, sigma, uniform):
    """Kolmogorov-Smirnov distance of a run to a centred law with standard deviation sigma, taken between the atoms."""
    total, seen, worst, last = 0, 0, 0.0, -1
    for i in range(keys.size):
        total += counts[i] if np.isfinite(values[keys[i]]) else 0
    for i in range(keys.size):
        value = values[keys[i]]
        if not np.isfinite(value):
            continue
        if last >= 0:
            before = values[keys[last]]
            edge = 0.5 * (before + value) if exact else (value if value > 0 else before)
            worst = max(worst, abs(seen / total - law_cdf(edge, sigma, uniform)))
        seen += counts[i]
        last = i
    return worst


@part
def bin_run(keys, counts, values, exact, low, high, out):
    """Counts of a run in out.size equal bins from low to high; inexact keys count at the middle of their range."""
    scale = out.size / (high - low) if high > low else 0.0
    for i in range(keys.size):
        value = values[keys[i]]
        if np.isfinite(value):
            middle = min(max(value if exact else value * (1 + 2.0**-8), low), high)
            out[min(np.int64((middle - low) * scale), out.size - 1)] += counts[i]


@part
def surprise(count, total):
    """What codes that occur `count` times of `total` add to the entropy, negative."""
    share = count / total
    return share * np.log2(share)


@part
def code_usage(keys, counts, values, low, high, small):
    """(Shannon entropy of the codes in bits, share of codes at or beyond the limits low and high) of a run.

    `small` is room for what small counts add: logarithms take most of the time where each of many codes occurs a few times.
    """
    total, limit, entropy = 0, 0, 0.0
    for i in range(keys.size):
        total += counts[i]
        value = values[keys[i]]
        if value <= low or value >= high:
            limit += counts[i]
    known = small.size if keys.size > small.size else 0
    for count in range(1, known):
        small[count] = surprise(count, total)
    for i in range(keys.size):
        entropy -= small[counts[i]] if counts[i] < known else surprise(counts[i], total)
    return (max(entropy, 0.0), limit / total) if total else (0.0, 0.0)


@part
def codes_of_runs(ends, view, keys, counts, values, low, high, small, out):
    """code_usage for the view of every segment: out[s, 0:2]."""
    for s in range(ends.shape[0]):
        start, end = ends[s - 1, view] if s else 0, ends[s, view]
        out[s, 0], out[s, 1] = code_usage(keys[start:end], counts[start:end], values, low, high, small)


@part
def fold_rows(rows, ends, out):
    """out[g] = the rows up to ends[g], from the end before on, merged first to last; neutral where there are none."""
    for g in range(ends.size):
        first = ends[g - 1] if g else 0
        for c in range(out.shape[1]):
            out[g, c] = rows[first, c] if first < ends[g] else 0.0
        for s in range(first + 1, ends[g]):
            merge_rows(out[g], rows[s])
