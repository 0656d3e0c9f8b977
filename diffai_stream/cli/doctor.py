"""`diffai doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

from diffai_stream.cli.listing import listing_options, print_entries, print_json_lines
from diffai_stream.cli.sections import SectionCommand

TROUBLE = 2


def _doctor(is_json: bool, color: str) -> int:
    from diffai_stream.doctor import checks

    found = checks()
    if is_json:
        print_json_lines(check._asdict() for check in found)
    else:
        states = {(True, True): "ok", (True, False): "ok", (False, True): "FAIL", (False, False): "-"}
        print_entries(((states[check.ok, check.required], check.name, check.detail, check.hint) for check in found), color)
    return TROUBLE if any(check.required and not check.ok for check in found) else 0


doctor = SectionCommand(
    "doctor",
    callback=_doctor,
    params=listing_options(),
    help="Say what is installed, writable and usable here, and why not. Exits with 2 when something needed is missing.",
    short_help="Say what works here and what does not.",
)
