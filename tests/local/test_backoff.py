from canary_rollout.local.backoff import BackOff


def test_the_first_restart_is_at_once_and_the_next_ones_double_from_ten_seconds_to_five_minutes():
    back_off = BackOff()
    assert [back_off.next() for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_image_pulls_begin_with_ten_seconds():
    back_off = BackOff(first=10.0)
    assert [back_off.next() for _ in range(3)] == [10, 20, 40]


def test_a_container_that_ran_well_for_ten_minutes_starts_over():
    back_off = BackOff()
    for _ in range(5):
        back_off.next()
    assert back_off.next(ran_seconds=599) == 160
    assert back_off.next(ran_seconds=601) == 0


def test_the_scale_shortens_the_ten_minutes_too():
    back_off = BackOff(scale=0.01)
    back_off.next()
    back_off.next()
    assert back_off.next(ran_seconds=7) == 0
