"""Laws of what is said of a trouble, whatever fails and works in whatever order."""

import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from streams.trouble import MOST_KINDS, QUIET_S, REMIND_S, Trouble

#: After so many seconds, whose sums are exact: an error of that kind, or None where it works.
STEPS = st.lists(
    st.tuples(st.sampled_from([0, 0.25, 1, QUIET_S - 1, QUIET_S + 1, REMIND_S]), st.none() | st.integers(0, 9)),
    max_size=80,
)


@given(STEPS)
def test_it_is_bounded_what_is_said_and_every_failure_is_counted_once(steps):
    now_s, met = 0.0, 0
    overs: list[tuple[float, int]] = []
    spoken: list[float] = []
    tracebacks = 0
    trouble = Trouble(structlog.get_logger("test"), now_s=lambda: now_s)
    for after_s, kind in [*steps, (QUIET_S, None)]:
        now_s += after_s
        with capture_logs() as lines:
            if kind is None:
                trouble.over()
            else:
                met += 1
                trouble.raised("fetch.failed", ValueError("abcdefghij"[kind]))
        for line in lines:
            if line["event"] == "trouble.over":
                # Two ends are far apart, and few lines are between them.
                assert not overs or now_s - overs[-1][0] >= QUIET_S
                assert 1 <= len(spoken) <= MOST_KINDS + (spoken[-1] - spoken[0]) / REMIND_S
                assert tracebacks <= 1
                overs.append((now_s, line["times"]))
                spoken, tracebacks = [], 0
            elif line["log_level"] != "debug":
                spoken.append(now_s)
                tracebacks += "exc_info" in line

    # It has worked, and nothing failed for a while: nothing is left that nobody was told the end of.
    assert spoken == []
    assert sum(times for _, times in overs) == met
