"""The complete binary tree over leaves, inside a kernel: only the sums that wait for their sibling are kept."""

from __future__ import annotations

from diffai_stream.jit import part


@part
def add_siblings(stack, top, number):
    """Add the sums of neighbouring nodes after leaf `number`, counted from 1, was put at the top; where the top is now."""
    while number % 2 == 0:
        left, right = stack[top - 1], stack[top]
        for i in range(left.size):
            left[i] += right[i]
        top -= 1
        number //= 2
    return top
