"""All faults by name."""

from __future__ import annotations

from tests.faults import deaths, disks, inputs, memory, streams, surroundings

ROOMS = (deaths, disks, streams, inputs, surroundings, memory)
FAULTS = {fault.name: fault for room in ROOMS for fault in room.FAULTS}
