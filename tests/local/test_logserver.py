import asyncio
import os

import pytest

from canary_rollout.local.logserver import last_lines, peer_user


@pytest.mark.parametrize(
    ("lines", "expected"), [(None, b"a\nb\nc"), (0, b""), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")]
)
def test_the_last_lines_are_whole_lines(lines, expected):
    assert last_lines(b"a\nb\nc", lines) == expected


async def test_the_user_at_the_other_end_of_a_local_connection_is_known():
    accepted = asyncio.Queue()

    async def answer(_reader, writer):
        accepted.put_nowait(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer = await accepted.get()
    assert peer_user(*writer.get_extra_info("peername")) == os.getuid()
    for end in (client, writer):
        end.close()
        await end.wait_closed()
    server.close()
    await server.wait_closed()


def test_an_unknown_connection_has_no_user(tmp_path):
    table = tmp_path / "tcp"
    row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1234 0 1\n"
    table.write_text("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n" + row)
    assert peer_user("127.0.0.1", 8080, table) == 1234
    assert peer_user("127.0.0.1", 8081, table) is None
