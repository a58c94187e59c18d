# SPDX-License-Identifier: GPL-2.0-or-later
"""Polling against interrupts."""
from svio_tool.lessons.frame import Lesson, Outcome, trip_table, trips

NAMES = ("svio-native", "svio-sleep")
COLUMNS = (("p50_us", "p50 us", ",.0f"), ("doorbells", "doorbells", ".2f"), ("sleeps", "sleeps", ".2f"),
           ("switches", "context switches", ".1f"), ("board_us", "on-board CPU us", ",.0f"))


def run(context):
    outcome = Outcome()
    found = trips(context, NAMES)
    trip_table(outcome, found, COLUMNS)
    poll, sleep = (found[name] for name in NAMES)
    outcome.expect(poll["doorbells"] < 0.5 < sleep["doorbells"],
                   f"A core that sleeps is rung for: {sleep['doorbells']:.2f} doorbells a round trip, "
                   "each an exit of the guest; one that polls finds the message by itself "
                   f"({poll['doorbells']:.2f}).")
    outcome.expect(poll["p50_us"] < sleep["p50_us"],
                   f"The wake-up is in the round trip: {sleep['p50_us']:,.0f} us, against "
                   f"{poll['p50_us']:,.0f} us.")
    outcome.expect(poll["board_us"] > sleep["board_us"],
                   f"Polling has its price in CPU: {poll['board_us']:,.0f} us of the on-board core a "
                   f"round trip, against {sleep['board_us']:,.0f} us.")
    outcome.notes.append("The card does both: it polls for poll-us after its last work (the budget "
                         "shrinks for a guest that trickles), and sleeps then. poll-us=0 is the second "
                         "row.")
    return outcome


LESSON = Lesson("polling", "Polling against interrupts",
                "A core that sleeps costs nothing. What does it cost to wake it for every message?",
                3, (), ("scripts/svio bench --quick --no-xen --only svio-native,svio-sleep",
                        "scripts/svio vm --poll-us 0"), run)
