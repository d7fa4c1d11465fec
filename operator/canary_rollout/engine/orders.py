"""Commands of people: taken one at a time, recorded as consumed in the same state that carries their effect."""

from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from canary_rollout.engine.draft import ENDING, HOLDING, RESTING, Draft, cut, stage_at
from canary_rollout.model.commands import EXPIRES_AFTER, Command, Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Stage, stages_from_weights
from canary_rollout.model.status import MAX_HEARD, Approval, CommandStatus, Pause, StageClock
from canary_rollout.model.units import UnitError, format_moment, format_weight, parse_weight

_FOR_A_SERVING_REVISION: Final = frozenset({Verb.SET_WEIGHT, Verb.PROMOTE, Verb.RESUME})
"""Commands that a person can only mean for a revision that has begun."""


class _RefusedError(Exception):
    """Why a command is not carried out; its text is the answer."""


def take_command(draft: Draft) -> None:
    """Consume the oldest command that can be consumed now; at most one in each decision."""
    for command in draft.seen.commands:
        if command.id in draft.state.heard or _waits_for_its_revision(draft, command):
            continue
        before = draft.state
        try:
            _check(draft, command)
            answer, accepted = _ORDERS[command.verb](draft, command), True
        except _RefusedError as refused:
            answer, accepted = str(refused), False
            draft.state = before
            draft.note(Reason.COMMAND_REFUSED, f"{command.verb}: {answer}", warning=True)
        draft.change(heard=(command.id, *draft.state.heard)[:MAX_HEARD])
        draft.command = CommandStatus(
            id=command.id, command=command.verb, at=draft.now, by=command.by, accepted=accepted, message=cut(answer)
        )
        draft.wake(draft.now)
        return


def _waits_for_its_revision(draft: Draft, command: Command) -> bool:
    """``start`` may be sent before the image changes; it waits for the revision it names."""
    young = draft.now - command.at < EXPIRES_AFTER
    arrived = command.revision == draft.state.revision and draft.state.phase not in RESTING
    waits = command.verb is Verb.START and young and not arrived and draft.state.halt_of(command.revision) is None
    if waits:
        draft.wake(command.at + EXPIRES_AFTER)
    return waits


def _check(draft: Draft, command: Command) -> None:
    age = draft.now - command.at
    if age >= EXPIRES_AFTER:
        raise _RefusedError(f"it was sent {age / 3600:.0f} h ago and has expired; send it again")
    known = {draft.state.revision, draft.seen.canary.revision if command.verb is Verb.RETRY else draft.state.revision}
    if command.revision not in known:
        raise _RefusedError(
            f"it was meant for revision {command.revision}, the rollout is at {draft.state.revision or 'none'}; look and send it again"
        )
    # After a loss of status nobody knows which commands were consumed: an old one must not raise anything again.
    began = draft.state.began_at or 0.0
    if command.verb in _FOR_A_SERVING_REVISION and command.at < began:
        raise _RefusedError(
            f"it was sent at {format_moment(command.at)}, before revision {command.revision} began at "
            f"{format_moment(began)}; look and send it again"
        )


def _need(draft: Draft, phases: frozenset[Phase], what: str) -> None:
    if draft.state.phase not in phases:
        raise _RefusedError(f"{what}; the rollout is {draft.state.phase}")


def _not_condemned(draft: Draft) -> None:
    if halt := draft.state.halt_of(draft.state.revision):
        raise _RefusedError(f"revision {halt.revision} was stopped ({halt.message}); `retry` starts it again")


def _start(draft: Draft, command: Command) -> str:
    _not_condemned(draft)
    _need(draft, frozenset({Phase.PREPARING}), "start counts only before the revision serves")
    args, answers = command.args, []
    if args.stages:
        draft.change(override=_stages(draft, command))
        answers.append("stages replaced for this revision")
    if args.weight is not None:
        draft.change(pin=_weight(draft, args.weight))
        answers.append(f"goes to {args.weight} and pauses")
    return "; ".join(answers) or "goes through the stages of the spec"


def _stages(draft: Draft, command: Command) -> tuple[Stage, ...]:
    try:
        stages = stages_from_weights(command.args.stages, command.args.interval or "10m")
    except ValidationError as error:
        raise _RefusedError(f"these stages cannot be used: {error.errors()[0]['msg']}") from error
    except ValueError as error:  # a unit, or stages that do not rise
        raise _RefusedError(f"these stages cannot be used: {error}") from error
    for stage in stages:
        _weight(draft, format_weight(stage.weight))
    return stages


def _weight(draft: Draft, text: str | None) -> int:
    """Basis points of a weight that the router can express (invariant 8: never rounded)."""
    try:
        weight = parse_weight(text)
    except UnitError as error:
        raise _RefusedError(str(error)) from error
    step = draft.seen.step
    if weight % step:
        lower = weight - weight % step
        raise _RefusedError(
            f"this router has steps of {format_weight(step)}: write {format_weight(lower)} or {format_weight(lower + step)}"
        )
    return weight


def _not_held_by_spec(draft: Draft) -> None:
    if draft.spec.paused:
        raise _RefusedError("spec.paused is true, so the weight stays where it is; set it to false first")


def _set_weight(draft: Draft, command: Command) -> str:
    _not_condemned(draft)
    _need(draft, HOLDING, "the weight can be set while a revision is held at a stage")
    weight = _weight(draft, command.args.weight)
    text, stage = format_weight(weight), stage_at(draft.stages, weight).name
    if weight < draft.state.wanted:
        draft.lower(Reason.WEIGHT_SET, weight)
    elif weight > draft.state.wanted:
        _not_held_by_spec(draft)
        draft.want(weight, stage)
    draft.change(
        stage=stage,
        pause=Pause(reason=Reason.PAUSED_BY_COMMAND, message=f"weight set to {text} by command", at=draft.now),
    )
    draft.note(Reason.WEIGHT_SET, f"weight {text} by command{_by(command)}; paused there until `resume`")
    return f"weight {text}, paused there until resume"


def _pause(draft: Draft, command: Command) -> str:
    _not_condemned(draft)
    _need(draft, HOLDING | {Phase.PREPARING}, "there is nothing to pause")
    draft.stay_here()
    draft.pause(Reason.PAUSED_BY_COMMAND, f"paused by command{_by(command)}{_why(command)}")
    return "paused; `resume` goes on"


def _resume(draft: Draft, command: Command) -> str:
    if draft.state.pause is None:
        raise _RefusedError(
            "it is not paused by a command or a rule" + (" (spec.paused is true)" if draft.spec.paused else "")
        )
    draft.change(pause=None, fresh_after=draft.now, no_data_since=None, clock=_whole_hold_again(draft))
    draft.restart_evidence = True
    draft.note(Reason.RESUMED, f"resumed by command{_by(command)}")
    return "resumed; rules start afresh"


def _whole_hold_again(draft: Draft) -> StageClock:
    """After a pause that the rollout itself asked for, the weight is held for its whole time again."""
    pause = draft.state.pause
    by_person = pause is not None and pause.reason is Reason.PAUSED_BY_COMMAND
    return draft.state.clock if by_person else StageClock()


def _approve(draft: Draft, command: Command) -> str:
    _not_condemned(draft)
    _need(draft, HOLDING | {Phase.PREPARING}, "there is nothing to approve")
    following = draft.next_stage
    if following is None or following.approval is None:
        raise _RefusedError("the next stage needs no approval")
    draft.change(approval=Approval(stage=following.name, at=min(command.at, draft.now)))
    draft.note(Reason.APPROVED, f"stage {following.name} approved{_by(command)}")
    return f"stage {following.name} approved"


def _promote(draft: Draft, command: Command) -> str:
    _not_condemned(draft)
    _need(draft, HOLDING, "there is no stage to go on from")
    target = draft.stages[-1] if command.args.full else draft.next_stage
    if target is None or target.weight <= draft.state.wanted:
        raise _RefusedError(f"it is at {format_weight(draft.state.wanted)} already")
    _not_held_by_spec(draft)
    draft.want(target.weight, target.name)
    draft.change(pause=None)
    draft.note(Reason.STAGE_STARTED, f"stage {target.name} ({format_weight(target.weight)}) by command{_by(command)}")
    return f"goes to stage {target.name} ({format_weight(target.weight)})"


def _rollback(draft: Draft, command: Command) -> str:
    if halt := draft.state.halt_of(draft.state.revision):
        return f"revision {halt.revision} was stopped already ({halt.message}): its traffic goes to stable"
    under_way = HOLDING | ENDING | {Phase.PREPARING}
    _need(draft, under_way - {Phase.ROLLING_BACK, Phase.RETURNING}, "there is nothing to roll back")
    draft.halt(Reason.ROLLBACK_COMMANDED, f"rolled back by command{_by(command)}{_why(command)}")
    return "rolled back; `retry` starts the revision again"


def _retry(draft: Draft, command: Command) -> str:
    _need(draft, RESTING, "retry counts once the rollback is done")
    halt, stopped = draft.state.halt_of(command.revision), draft.state.phase in {Phase.ROLLED_BACK, Phase.HALTED}
    if halt is None and not stopped:
        raise _RefusedError(f"revision {command.revision} was not stopped")
    if halt is not None and command.at < halt.at:
        raise _RefusedError(
            f"it was sent at {format_moment(command.at)}, before revision {halt.revision} was stopped at "
            f"{format_moment(halt.at)} ({halt.message}); look and send it again"
        )
    # began_at: verdicts on the route that are older than this moment no longer count.
    draft.change(
        halts=tuple(halt for halt in draft.state.halts if halt.revision != command.revision),
        revision="",
        phase=Phase.IDLE,
        began_at=draft.now,
    )
    draft.restart_evidence = True
    draft.note(Reason.RETRIED, f"revision {command.revision} starts again{_by(command)}")
    return "starts again from the first stage"


def _reset(draft: Draft, command: Command) -> str:
    _not_condemned(draft)
    _need(draft, HOLDING, "there is no evidence to forget")
    draft.change(fresh_after=draft.now, clock=StageClock(), no_data_since=None)
    draft.restart_evidence = True
    draft.note(Reason.EVIDENCE_RESET, f"evidence of stage {draft.state.stage} forgotten by command{_by(command)}")
    return "evidence forgotten; the stage is held for its whole time again"


def _by(command: Command) -> str:
    return f" of {command.by}" if command.by else ""


def _why(command: Command) -> str:
    return f": {command.args.reason}" if command.args.reason else ""


_ORDERS: Final[dict[Verb, Callable[[Draft, Command], str]]] = {
    Verb.START: _start,
    Verb.SET_WEIGHT: _set_weight,
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.APPROVE: _approve,
    Verb.PROMOTE: _promote,
    Verb.ROLLBACK: _rollback,
    Verb.RETRY: _retry,
    Verb.RESET: _reset,
}
