"""What a status holds: it reads back as it was written, and it is small whatever happened."""

import json
from dataclasses import replace

import tally
from reported import Reported, held
from world import FAIL, V1, V2, verdict

from canary_rollout.analysis.evidence import Breach, Evidence, short
from canary_rollout.analysis.fitting import LARGEST_CHECKPOINT, encoded
from canary_rollout.analysis.verdict import Assessment, Outcome
from canary_rollout.engine.draft import cut
from canary_rollout.engine.fitting import LARGEST_STATUS, fitted
from canary_rollout.engine.report import Facts, report
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.effective import MOST_RULES
from canary_rollout.model.spec import stages_from_weights
from canary_rollout.model.status import (
    MAX_HALTS,
    MAX_HEARD,
    MAX_HISTORY,
    Approval,
    CanaryRolloutStatus,
    CommandStatus,
    ConditionStatus,
    Halt,
    HistoryEntry,
    Lowering,
    Pause,
    RolloutState,
    StageClock,
)


def test_a_status_reads_back_as_it_was_written_at_every_look():
    world = Reported(now=1_700_000_000.999_999_9).start()
    for step in range(80):
        if step == 3:
            world.release()
        if step == 40:
            world.rules = FAIL
        world.look()
        again = CanaryRolloutStatus.model_validate(json.loads(json.dumps(world.status.to_dict())))
        assert again == world.status
        world.now += 3.333_333


def test_absent_is_not_written_as_null():
    assert "null" not in json.dumps(held().status.to_dict())


def worst_case() -> CanaryRolloutStatus:
    """Every list full, every text as long as it can be."""
    long, name, at = "w" * 5000, "n" * 63, 1_700_000_000.123
    stages_ = stages_from_weights((*(f"{number + 1}%" for number in range(31)), "100%"), "99999d23h59m59s")
    rules = tuple(
        replace(verdict(Outcome.FAIL, rule=f"{number:02d}{name}"[:63], since=at), message=long)
        for number in range(MOST_RULES + 8)
    )
    exits = tuple(replace(rule, action=None, rule=f"g{rule.rule}"[:63]) for rule in rules[:16])
    state = RolloutState(
        phase=Phase.AWAITING_PROMOTION,
        revision=V2,
        stable_revision=V1,
        stage=stages_[-1].name,
        wanted=9999,
        confirmed=9999,
        clock=StageClock(held_ms=10**10, since=at),
        began_at=at,
        serving_since=at,
        pause=Pause(reason=Reason.PAUSED_NOT_ENOUGH, rule=name, message=long[:300], at=at),
        lowering=Lowering(reason=Reason.NEW_REVISION, to=9999, at=at),
        approval=Approval(stage=name, at=at),
        no_data_since=at,
        drain_until=at,
        fresh_after=at,
        pin=9999,
        override=stages_,
        halts=tuple(
            Halt(
                revision=f"{number:010d}",
                reason=Reason.ROLLBACK_COMMANDED,
                rule=name,
                message=long[: 100 if number else 300],
                stage=name,
                weight=9999,
                at=at,
            )
            for number in range(MAX_HALTS)
        ),
        heard=("i" * 64,) * MAX_HEARD,
    )
    entry = HistoryEntry(
        revision=V2, result="Superseded", reason="R" * 24, message=long[:100], began_at=at, ended_at=at
    )
    entries, tests = exits[:8], tuple(replace(rule, rule=f"t{rule.rule}"[:63]) for rule in rules[:6])
    breaches = {short(rule.rule): Breach("f" * 8, at, 123_456.789, at) for rule in rules}
    lasting = {short(f"exit/{gate.rule}"): Breach("f" * 8, at, 123_456.789, at) for gate in (*exits, *entries)}
    seen = frozenset(f"queries~{number:08x}" for number in range(96))
    muted = frozenset(list(breaches)[:8])
    comparison = {"checkpoint": "c" * (LARGEST_CHECKPOINT - 20)}
    evidence = Evidence(breaches, seen, seen, at, at, lasting, muted, comparison)
    command = CommandStatus(id="i" * 64, command="set-weight", at=at, by="b" * 128, accepted=False, message="m" * 300)
    old = CanaryRolloutStatus(
        history=(entry,) * MAX_HISTORY,
        last_command=command,
        consumed={verb.value: "i" * 64 for verb in Verb},
        conditions=(ConditionStatus(type="Ready", status="False", reason="Idle", message="", last_transition_time=at),),
    )
    world = held()
    decision = replace(
        world.last, state=state, message=long, stalled=True, ended=entry, command=command, next_change=at
    )
    route = replace(world.route, contested_by="m" * 128, weight=1)
    assessment = Assessment(
        at, rules, exits, entering="next", entries=entries, tests=tests, promotion=replace(exits[0], rule="promotion")
    )
    return report(old, decision, Facts(world.spec, 7, route, assessment, evidence.to_dict(), at))


def test_texts_of_any_language_are_bounded_in_bytes():
    for text in ("w" * 900, "ü" * 900, "語" * 900, "🐤" * 900):
        assert len(cut(text, 300).encode()) <= 302
        assert cut(text, 300).endswith(text[0] + "…")
        assert cut(text[:60], 300) == text[:60]


def test_where_even_that_is_too_much_the_oldest_evidence_is_left_out_and_said():
    status = worst_case()
    seen = [f"{number:03d}-of-stable~{number:08x}"[:16] for number in range(128)]
    evidence = {**status.evidence, "seenStable": seen, "seenCanary": [name[::-1] for name in seen]}
    large = status.model_copy(update={"evidence": evidence, "router": "r" * 800})
    assert encoded(large.to_dict()) > LARGEST_STATUS
    written, left = fitted(large)
    assert encoded(written.to_dict()) <= LARGEST_STATUS
    assert set(left) == {"gates", "breaches", "comparison"}
    assert written.evidence["seenStable"] == seen
    assert written.model_copy(update={"evidence": evidence}) == large, "nothing but evidence is touched"


def test_words_of_verdicts_go_last():
    status = worst_case().model_copy(update={"router": "r" * 27_000, "evidence": {"seen": ["error-rate"]}})
    status = status.model_copy(
        update={"history": (), "rollout": RolloutState(), "last_command": None, "consumed": {}, "conditions": ()}
    )
    long = tuple(said.model_copy(update={"message": "w" * 2000}) for said in status.verdicts)
    written, left = fitted(status.model_copy(update={"verdicts": long}))
    assert left == ("verdicts",)
    assert encoded(written.to_dict()) <= LARGEST_STATUS
    assert [said.rule for said in written.verdicts] == [said.rule for said in long]


def test_the_largest_possible_status_is_small():
    status, left = fitted(worst_case())
    assert set(left) <= {"gates", "breaches"}, "where everything is as long as can be, a few clocks of rules"
    size = encoded(status.to_dict())
    tally.LINES.append(f"engine: the largest possible status has {size} bytes")
    assert size < LARGEST_STATUS
