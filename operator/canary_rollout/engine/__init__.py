"""The pure state machine: decide(spec, state, observation, now) -> Decision."""
